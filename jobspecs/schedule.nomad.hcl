# A function that a clock calls. Copy this file, put your app's and function's names in place of news and digest, and run it:
#
#   nomad job run -var image=docker.io/library/busybox:1 jobspecs/schedule.nomad.hcl
#   freshet schedule list news
#   freshet schedule run news.digest morning
#
# One call is made a tick, whichever gateways run. The schedules come, change and go with the job; docs/http-api.md says the rest.

variable "image" {
  description = "The image: a registry's reference, or docker-archive:, oci-archive: or oci: and an absolute path on every node."
  type        = string
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "news.digest" {
  type        = "service"
  datacenters = ["*"]

  # These make the job a function.
  meta = {
    "freshet.app"      = "news"
    "freshet.function" = "digest"
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
      max     = 1

      policy {
        scaledown_window = "60s"
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

        command = "sh"
        args    = ["-c", "echo digest of $(date); cat"]
        timeout = "10m"

        # Five fields: minute, hour, day, month, weekday.
        schedule {
          name      = "morning"
          cron      = "0 9 * * 1-5"
          time_zone = "Europe/Berlin"
          input     = "{\"of\": \"today\"}"
        }

        # A period, and what becomes of ticks that nobody could see to: latest, all or skip.
        schedule {
          name   = "hourly"
          every  = "1h"
          missed = "skip"
        }
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
