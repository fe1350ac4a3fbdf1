# A function, written by hand. Copy this file, put your app's and function's names in place of hello and greet, and run it:
#
#   nomad job run -var code=/srv/hello jobspecs/function.nomad.hcl
#
# It says the same as `freshet deploy` would: there is no other record of a function than its job. What is left out has the
# default that stands beside it.

variable "code" {
  description = "The function's program, a static binary: an absolute path on every node, or sha256:<hex> of a blob that was uploaded with PUT /v1/blobs/<hex>."
  type        = string
}

variable "version" {
  description = "Any text that tells deploys apart."
  type        = string
  default     = "1"
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "hello.greet" {
  type        = "service"
  datacenters = ["*"]

  # Online functions stand above batch ones: 1 to 100.
  priority = 50

  # These make the job a function.
  meta = {
    "freshet.app"      = "hello"
    "freshet.function" = "greet"
    "freshet.version"  = var.version
  }

  group "worker" {
    # The autoscaler sets the count from here on. It starts at scaling.min.
    count = 0

    # Needed: during a deployment Nomad would refuse to scale.
    update {
      max_parallel = 0
    }

    scaling {
      enabled = true
      min     = 0  # workers that stay when there is nothing to do
      max     = 10 # workers at most

      policy {
        target_inflight  = 4     # calls, waiting and running, for which there is one worker (default: concurrency)
        buffer           = 0     # idle workers kept beyond the need while there is any
        scaledown_window = "60s" # how long the need must stay lower before workers go
        zero_window      = "60s" # how long there must be no need before the last one goes (default: scaledown_window)
        # backlog_target    = "30s" # within what time waiting calls should be done: fewer workers, each for more calls
        # starts_per_minute = 20    # workers started within a minute at most
        # predict_period    = "24h" # start ahead of a load that the periods before had
        # schedule {                # more workers at times
        #   cron     = "30 8 * * 1-5"
        #   timezone = "Europe/Berlin"
        #   for      = "10h"
        #   min      = 2
        # }
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

    # For the log files alone: what a guest writes stays in its memory.
    ephemeral_disk {
      size = 50
    }

    task "guest" {
      driver = "freshet"

      # How long a stopping worker may take to finish its calls. The clients' max_kill_timeout must allow it.
      kill_timeout = "600s"

      # The driver writes the log files itself, where `nomad alloc logs` finds them: saves 90 ms a start.
      logs {
        disabled      = true
        max_files     = 5
        max_file_size = 5
      }

      config {
        code = var.code

        # go: a static binary that speaks freshet's protocol itself, as programs with the Go SDK do. entry is the name
        # that the program gave the function.
        handler {
          type  = "go"
          entry = "greet"
        }

        concurrency     = 4       # calls that a worker runs at once (default 1)
        timeout         = "300s"  # bounds one attempt of a call (default 5m)
        startup_timeout = "600s"  # bounds a cold start up to the end of the enter hooks (default 10m)
        max_pending     = 1000000 # calls waiting and running; beyond it callers get 429

        # Keys of these become variables of the environment; `freshet secret create` makes one.
        # secrets = ["db", "huggingface:HF_TOKEN"]

        # Directories that functions share; `freshet volume create` makes one.
        # volume {
        #   name     = "models"
        #   target   = "/models"
        #   readonly = true
        # }

        # What happens to a call whose code raised an error (default: nothing more).
        retries {
          max       = 0
          backoff   = 2
          initial   = "1s"
          max_delay = "60s"
        }

        # Called by a clock, in place of or beside calls. cron is in time_zone (default UTC); every = "1h" is a period.
        # schedule {
        #   name      = "morning"
        #   cron      = "0 9 * * 1-5"
        #   time_zone = "Europe/Berlin"
        #   input     = "{\"name\": \"world\"}"
        # }

        # Freeze the worker after its enter hooks; later ones thaw instead of starting.
        snapshot {
          enabled = true
        }
      }

      # The guest's environment.
      env {
        LOG_LEVEL = "info"
      }

      # What one worker reserves: MHz and MB.
      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
