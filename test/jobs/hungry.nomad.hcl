# Work that wants more memory than it has.
job "hungry" {
  type = "batch"

  group "work" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "work" {
      driver = "freshet" # "docker"

      config {
        image   = "127.0.0.1:5000/busybox:1"
        command = "tail"
        args    = ["/dev/zero"]
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
