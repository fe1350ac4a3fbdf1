# A Python function. Copy this file, put your app's and function's names in place of py and greet, and run it:
#
#   tar czf app.tar.gz app.py && curl -T app.tar.gz http://127.0.0.1:8600/v1/blobs/$(sha256sum app.tar.gz | cut -d' ' -f1)
#   nomad job run -var image=registry.example/python:1 -var code=sha256:… jobspecs/python.nomad.hcl
#   freshet call py.greet '"world"'
#
# It says the same as `freshet deploy app.py` would. docs/python.md says what a function may be.

variable "image" {
  description = "An image with Python 3.9 or newer: a registry's reference, or docker-archive:, oci-archive: or oci: and an absolute path on every node. It needs nothing of freshet."
  type        = string
}

variable "code" {
  description = "The modules, as a tar: sha256:<hex> of a blob that was uploaded with PUT /v1/blobs/<hex>, or an absolute path on every node. Empty for modules that the image has in its working directory."
  type        = string
  default     = ""
}

# The job's name must be APP.FUNCTION. Each name has letters, digits, - and _.
job "py.greet" {
  type        = "service"
  datacenters = ["*"]

  # These make the job a function.
  meta = {
    "freshet.app"      = "py"
    "freshet.function" = "greet"
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

        # module:function, module:Class with its methods, or module:app for an ASGI or WSGI app.
        handler {
          type  = "python"
          entry = "app:greet"
        }

        # command = "/opt/venv/bin/python" # the interpreter (default: python3 on the image's PATH); args are its options

        concurrency = 1 # 1: on the main thread; more: async calls on one loop, others in threads
        timeout     = "60s"

        # Freeze the worker after its module is loaded and its enter hooks have run; later ones thaw instead of starting.
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
