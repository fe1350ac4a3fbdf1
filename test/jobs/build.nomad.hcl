# An image built on a worker node: stages that run at once, files from the network, a secret by a template, the task's own limits.
variable "base" {
  type = string
}

variable "source" {
  type = string # host:port of a web server
}

job "build" {
  type = "batch"

  group "build" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "build" {
      driver = "freshet"

      config {
        build {
          name       = "said"
          dockerfile = <<-END
            ARG BASE
            FROM $BASE AS one
            ARG SOURCE
            RUN wget -q -O /one http://$SOURCE/one
            FROM $BASE AS two
            ARG SOURCE
            RUN --mount=type=secret,id=place cat /run/secrets/place >/two && wget -q -O - http://$SOURCE/two >>/two
            FROM $BASE
            ARG SOURCE
            COPY --from=one /one /
            COPY --from=two /two /
            ADD http://$SOURCE/three /three
            CMD ["cat", "/one", "/two", "/three"]
          END
          args {
            BASE   = var.base
            SOURCE = var.source
          }
          secrets {
            place = "secrets/place"
          }
        }
      }

      template {
        destination = "secrets/place"
        data        = "{{ env \"node.unique.name\" }}\n"
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
