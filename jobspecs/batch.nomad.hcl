# Batch work that gives way. Copy this file, put your app's and function's names in place of nightly and embed, and run it:
#
#   nomad job run -var code=/srv/nightly jobspecs/batch.nomad.hcl
#   freshet spawn nightly.embed --batch texts.ndjson
#   freshet result BATCH --wait 1h
#
# A million calls may wait. Its priority is below that of functions that somebody waits for: they get its nodes first, and what it loses
# to them is run again.

variable "code" {
  description = "The function's program, a static binary: an absolute path on every node, or sha256:<hex> of a blob that was uploaded with PUT /v1/blobs/<hex>."
  type        = string
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "nightly.embed" {
  type        = "service"
  datacenters = ["*"]

  priority = 20

  # These make the job a function.
  meta = {
    "freshet.app"      = "nightly"
    "freshet.function" = "embed"
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
      max     = 50

      policy {
        scaledown_window  = "30s"
        backlog_target    = "10m" # enough workers for what waits to be done by then: fewer, and fuller ones
        starts_per_minute = 20    # pulls of a model from one server
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
        code = var.code

        handler {
          type  = "go"
          entry = "embed"
        }

        concurrency = 2
        timeout     = "30m"

        # Calls that wait are given to the program together. Programs of the Go SDK take them with freshet.Batched.
        batching {
          max_size = 32
          wait     = "50ms"
        }

        # What it was given when its code failed: again, and then to the dead calls, which can be looked at and replayed.
        retries {
          max     = 3
          initial = "5s"
        }

        snapshot {
          enabled = true
        }
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
