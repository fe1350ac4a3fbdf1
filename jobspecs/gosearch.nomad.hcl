# The app of examples/gosearch, deployed with no SDK call. Build it, and run this job:
#
#   (cd examples/gosearch && CGO_ENABLED=0 go build -o /tmp/gosearch .)
#   nomad job run -var code=/tmp/gosearch -var goroot="$(go env GOROOT)" jobspecs/gosearch.nomad.hcl
#   freshet call gosearch.search '{"q":"http server"}'

variable "code" {
  description = "Absolute path of the program on the node, or sha256:<hex> of an uploaded blob."
  type        = string
}

variable "goroot" {
  description = "Where Go is on the node. Workers see it, read-only, at /usr/local/go."
  type        = string
  default     = "/usr/local/go"
}

job "gosearch.search" {
  type = "service"

  meta = {
    "freshet.app"      = "gosearch"
    "freshet.function" = "search"
    "freshet.version"  = "by-hand"
  }

  group "worker" {
    count = 0

    update {
      max_parallel = 0
    }

    scaling {
      enabled = true
      min     = 0
      max     = 2

      policy {
        scaledown_window = "5s"
      }
    }

    task "guest" {
      driver       = "freshet"
      kill_timeout = "60s"

      logs {
        disabled = true
      }

      config {
        code        = var.code
        concurrency = 16
        timeout     = "10s"

        handler {
          type  = "go"
          entry = "search"
        }

        snapshot {
          enabled = true
        }

        mount {
          source   = var.goroot
          target   = "/usr/local/go"
          readonly = true
        }
      }

      resources {
        cpu    = 500
        memory = 768
      }
    }
  }
}
