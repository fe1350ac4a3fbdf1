# A task to look into: it says what signals it got, and how often it looked.
job "shell" {
  group "shell" {
    update {
      min_healthy_time = "0s"
    }

    restart {
      attempts = 3
      delay    = "1s"
    }

    task "shell" {
      driver       = "freshet" # "docker"
      kill_timeout = "20s"

      config {
        image   = "127.0.0.1:5000/busybox:1"
        command = "sh"
        args    = ["/local/watch.sh"]
      }

      template {
        destination = "local/watch.sh"
        data        = <<-END
          trap 'echo "got HUP"' HUP
          trap 'echo "got USR1"' USR1
          trap 'echo "ends"; exit 0' TERM
          echo "began with TOKEN=$TOKEN"
          echo "made by $$" > /alloc/data/mark
          while :; do
            echo tick
            sleep 1 & wait
          done
        END
      }

      env {
        TOKEN = "blue"
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
