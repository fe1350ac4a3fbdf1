# A function on a GPU, with other kinds where the first is full. Copy this file, put your app's and function's names in place of llm and
# generate, and run it:
#
#   nomad job run -var image=registry.example/llm:1 jobspecs/gpu.nomad.hcl
#   freshet call llm.generate --method generate '{"prompt":"hello"}'
#
# Each group is a kind of device, in the order of preference, and says the same but for that. docs/autoscaling.md says when workers move.

variable "image" {
  description = "The image: a registry's reference, or docker-archive:, oci-archive: or oci: and an absolute path on every node."
  type        = string
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "llm.generate" {
  type        = "service"
  datacenters = ["*"]

  # Calls that somebody waits for stand above batch work: 1 to 100.
  priority = 70

  # These make the job a function.
  meta = {
    "freshet.app"      = "llm"
    "freshet.function" = "generate"
    "freshet.version"  = "1" # any text that tells deploys apart
  }

  group "worker" {
    # The autoscaler sets the count from here on. function.nomad.hcl says what else can be set here, and in the task's config.
    count = 0

    # Needed: during a deployment Nomad would refuse to scale.
    update {
      max_parallel = 0
    }

    # With several groups the function's bounds stand in the first one's policy: Nomad refuses counts below a group's own min.
    scaling {
      enabled = true
      min     = 0
      max     = 8

      policy {
        scaledown_window = "120s"
        min              = 0
      }
    }

    # A worker that dies starts again: at once on its node, then anywhere, with growing pauses, for ever.
    restart {
      attempts = 5
      interval = "30s"
      delay    = "250ms"
      mode     = "fail"
    }

    reschedule {
      unlimited      = true
      attempts       = 0
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "2m"
    }

    task "guest" {
      driver       = "freshet"
      kill_timeout = "600s"

      # The driver writes the log files itself, where `nomad alloc logs` finds them.
      logs {
        disabled = true
      }

      config {
        image = var.image

        handler {
          type  = "python"
          entry = "llm:Model"
        }

        timeout         = "600s"
        startup_timeout = "1200s" # weights are large

        # Loaded once: later workers thaw with the weights in memory, those of the device too.
        snapshot {
          enabled = true
          gpu     = true
        }
      }

      resources {
        cpu    = 2000
        memory = 8192

        device "gpu" {
          count = 1

          constraint {
            attribute = "${device.model}"
            operator  = "regexp"
            value     = "(?i)\\bh100\\b"
          }
        }
      }
    }
  }

  # Where no H100 is free: any GPU.
  group "worker-any" {
    count = 0

    update {
      max_parallel = 0
    }

    scaling {
      enabled = true
      min     = 0
      max     = 8
    }

    # A worker that dies starts again: at once on its node, then anywhere, with growing pauses, for ever.
    restart {
      attempts = 5
      interval = "30s"
      delay    = "250ms"
      mode     = "fail"
    }

    reschedule {
      unlimited      = true
      attempts       = 0
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "2m"
    }

    task "guest" {
      driver       = "freshet"
      kill_timeout = "600s"

      # The driver writes the log files itself, where `nomad alloc logs` finds them.
      logs {
        disabled = true
      }

      config {
        image = var.image

        handler {
          type  = "python"
          entry = "llm:Model"
        }

        timeout         = "600s"
        startup_timeout = "1200s" # weights are large

        # Loaded once: later workers thaw with the weights in memory, those of the device too.
        snapshot {
          enabled = true
          gpu     = true
        }
      }

      resources {
        cpu    = 2000
        memory = 8192

        device "gpu" {
          count = 1
        }
      }
    }
  }
}
