# Work that is dispatched: its input and its settings come as files and as variables, and its exit code says how it went.
variable "image" {
  type = string # an archive on the node
}

job "batch" {
  type = "batch"

  parameterized {
    payload       = "required"
    meta_required = ["code"]
  }

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
        image      = var.image
        entrypoint = ["/bin/sh", "-c"]
        command    = <<-END
          echo "$0 in $(pwd) as $(id -u): $GREETING, $PLACE"
          cat /local/input
          echo "to the errors" >&2
          echo kept > /alloc/data/result
          exit "$NOMAD_META_code"
        END
        args       = ["work-${NOMAD_META_code}"]
        work_dir   = "/tmp"
      }

      env {
        GREETING = "hello ${attr.kernel.name}"
      }

      template {
        destination = "secrets/place.env"
        env         = true
        data        = "PLACE={{ env \"node.unique.name\" }}"
      }

      dispatch_payload {
        file = "input"
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
