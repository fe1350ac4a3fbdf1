# Two tasks in one network: a web server in front, and beside it the one that it asks, which nobody else reaches.
job "sidecar" {
  group "pair" {
    network {
      mode = "bridge"
      port "web" { to = 8080 }
    }

    update {
      min_healthy_time = "1s"
    }

    service {
      name     = "sidecar"
      port     = "web"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }
    }

    task "pages" {
      driver = "freshet" # "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image   = "127.0.0.1:5000/busybox:1"
        command = "httpd"
        args    = ["-f", "-p", "127.0.0.1:9000", "-h", "/local"]
      }

      template {
        destination = "local/index.html"
        data        = "behind {{ env \"NOMAD_TASK_NAME\" }}\n"
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }

    task "front" {
      driver      = "freshet" # "docker"
      kill_signal = "SIGQUIT"

      config {
        image   = "127.0.0.1:5000/nginx:1"
        volumes = ["local/nginx.conf:/etc/nginx/nginx.conf"]
      }

      template {
        destination = "local/nginx.conf"
        data        = <<-END
          pid /tmp/nginx.pid;
          events {}
          http {
            server {
              listen 8080;
              location / {
                proxy_pass http://127.0.0.1:9000;
              }
            }
          }
        END
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
