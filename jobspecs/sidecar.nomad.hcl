# An ordinary service with a helper beside it, both sandboxed: no function, just Nomad's tasks with freshet's driver. Copy this file and run it:
#
#   nomad job run -var image=docker.io/library/busybox:1 jobspecs/sidecar.nomad.hcl
#   nomad alloc exec -job -task pages pages wget -q -O - http://127.0.0.1:8080/
#
# The two share the allocation's directory, which both see as /alloc. The workers of a function see no such directory: what a frozen worker has
# in memory may not depend on what a neighbour writes. docs/docker-jobs.md says what ordinary tasks may have.

variable "image" {
  description = "The image: a registry's reference, or docker-archive:, oci-archive: or oci: and an absolute path on every node."
  type        = string
}

job "pages" {
  type        = "service"
  datacenters = ["*"]

  group "pages" {
    count = 1

    update {
      min_healthy_time = "1s"
    }

    # Renews what the server shows. It starts first, and is started again when it dies.
    task "writer" {
      driver = "freshet"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image   = var.image
        command = "sh"
        args    = ["-c", "while :; do date > /alloc/data/new && mv /alloc/data/new /alloc/data/index.html; sleep 10; done"]
      }

      resources {
        cpu    = 50
        memory = 128
      }
    }

    task "pages" {
      driver = "freshet"

      config {
        image   = var.image
        command = "httpd"
        args    = ["-f", "-p", "127.0.0.1:8080", "-h", "/alloc/data"]
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
