# A store with a volume of the host, on a port of the node.
job "redis" {
  group "cache" {
    network {
      port "db" { to = 6379 }
    }

    volume "data" {
      type   = "host"
      source = "redis"
    }

    service {
      name     = "redis"
      port     = "db"
      provider = "nomad"

      check {
        type     = "tcp"
        interval = "2s"
        timeout  = "1s"
      }
    }

    update {
      min_healthy_time = "1s"
    }

    task "redis" {
      driver = "freshet" # "docker"

      config {
        image   = "127.0.0.1:5000/redis:7"
        command = "redis-server"
        args    = ["--appendonly", "yes", "--protected-mode", "no", "--port", "${NOMAD_PORT_db}"]
        ports   = ["db"]
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
