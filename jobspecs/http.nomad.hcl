# Any HTTP server as a function. Copy this file, put your app's and function's names in place of web and api, and run it:
#
#   nomad job run -var image=registry.example/api:1 jobspecs/http.nomad.hcl
#   freshet call web.api '{"q":"x"}'
#
# The image's server is started once a worker, and frozen when it is ready. A call is a POST of its input to /, or to /METHOD; a
# status of 300 and more is an error. docs/handlers.md says the rest.

variable "image" {
  description = "The image: a registry's reference, or docker-archive:, oci-archive: or oci: and an absolute path on every node."
  type        = string
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "web.api" {
  type        = "service"
  datacenters = ["*"]

  # These make the job a function.
  meta = {
    "freshet.app"      = "web"
    "freshet.function" = "api"
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

        # The server listens on the loopback interface at the port, which it also gets as PORT. ready is asked until it answers
        # below 400; live is asked every 10 s from then on, and a server that fails it three times in a row is replaced.
        handler {
          type  = "http"
          port  = 8080
          ready = "/healthz"
          live  = "/healthz"
        }

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
