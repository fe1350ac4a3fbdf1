# A web server in several instances, updated one after another, that reads its pages' text from Nomad's variables.
variable "greeting" {
  type    = string
  default = "first"
}

job "web" {
  group "web" {
    count = 2

    network {
      port "http" { to = 8080 }
    }

    service {
      name     = "web"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }
    }

    update {
      max_parallel     = 1
      min_healthy_time = "1s"
    }

    restart {
      attempts = 3
      delay    = "1s"
    }

    task "nginx" {
      driver      = "freshet" # "docker"
      kill_signal = "SIGQUIT"

      config {
        image = "127.0.0.1:5000/nginx:1"
        ports = ["http"]
        volumes = [
          "local/nginx.conf:/etc/nginx/nginx.conf:ro",
          "local/conf.d:/etc/nginx/conf.d",
        ]
      }

      env {
        GREETING = var.greeting
      }

      template {
        destination = "local/nginx.conf"
        data        = <<-END
          pid /tmp/nginx.pid;
          events {}
          http {
            include /etc/nginx/conf.d/*.conf;
          }
        END
      }

      template {
        destination   = "local/conf.d/default.conf"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-END
          server {
            listen 8080;
            location / {
              return 200 '{{ env "GREETING" }} {{ env "NOMAD_ALLOC_INDEX" }} {{ with nomadVar "nomad/jobs/web" }}{{ .colour }}{{ end }}\n';
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
