# A command as a function. Copy this file, put your app's and function's names in place of text and sort, and run it:
#
#   nomad job run -var image=docker.io/library/busybox:1 jobspecs/exec.nomad.hcl
#   freshet call text.sort "$(cat names.txt)"
#
# The command runs once for each call: the input is its standard input, what it prints is the result, and an exit code that is not 0
# is an error, with the last lines of its standard error. docs/handlers.md says the rest.

variable "image" {
  description = "The image: a registry's reference, or docker-archive:, oci-archive: or oci: and an absolute path on every node."
  type        = string
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "text.sort" {
  type        = "service"
  datacenters = ["*"]

  # These make the job a function.
  meta = {
    "freshet.app"      = "text"
    "freshet.function" = "sort"
    "freshet.version"  = "1" # any text that tells deploys apart
  }

  group "worker" {
    # The autoscaler sets the count from here on. function.nomad.hcl says what else can be set here, and in the task's config.
    count = 0

    # Needed: during a deployment Nomad would refuse to scale.
    update {
      max_parallel = 0
    }

    scaling {
      enabled = true
      min     = 0
      max     = 10

      policy {
        scaledown_window = "60s"
      }
    }

    task "guest" {
      driver       = "freshet"
      kill_timeout = "60s"

      # The driver writes the log files itself, where `nomad alloc logs` finds them.
      logs {
        disabled = true
      }

      config {
        image = var.image

        handler {
          type = "exec"
        }

        # Arguments may hold what a call says, such as {{method}} or {{input.field}}:
        # args = ["--width", "{{input.width}}"]
        command = "sort"
        args    = ["-u"]

        concurrency = 4
        timeout     = "60s"

        # Freeze the worker when it is ready; later ones thaw instead of starting.
        snapshot {
          enabled = true
        }
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
