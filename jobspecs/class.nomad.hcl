# A Python class whose workers hold what it loaded, with a method and a parameter. Copy this file, put your names in place of search, index
# and find, and run it:
#
#   tar czf search.tar.gz search.py && curl -T search.tar.gz http://127.0.0.1:8600/v1/blobs/$(sha256sum search.tar.gz | cut -d' ' -f1)
#   nomad job run -var image=registry.example/python:1 -var code=sha256:… jobspecs/class.nomad.hcl
#   freshet call search.index --method find --param language=en '"words"'
#
# Each combination of parameters that is called has workers of its own, which thaw from a snapshot of their own. docs/python.md says what a
# class may be.

variable "image" {
  description = "The image: a registry's reference, or docker-archive:, oci-archive: or oci: and an absolute path on every node."
  type        = string
}

variable "code" {
  description = "The modules, as a tar: sha256:<hex> of a blob that was uploaded with PUT /v1/blobs/<hex>, or an absolute path on every node. Empty for modules that the image has in its working directory."
  type        = string
  default     = ""
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "search.index" {
  type        = "service"
  datacenters = ["*"]

  # These make the job a function.
  meta = {
    "freshet.app"      = "search"
    "freshet.function" = "index"
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
        code  = var.code

        handler {
          type  = "python"
          entry = "search:Index"
        }

        methods = ["find", "size"]

        parameter {
          name    = "language"
          type    = "string" # or int, bool, bytes
          default = "en"
        }

        concurrency = 8
        timeout     = "60s"

        # Frozen after the class's enter hook, once for each combination.
        snapshot {
          enabled = true
        }
      }

      resources {
        cpu    = 500
        memory = 1024
      }
    }
  }
}
