# The autoscaler, which sets how many workers each function has. Copy this file, and run it:
#
#   nomad var put nomad/jobs/autoscaler nats=PASSWORD
#   nomad job run -var freshet=/usr/local/bin/freshet -var nats=nats://nats.example:4222 jobspecs/system/autoscaler.nomad.hcl
#
# Of several one acts, and when it dies another one does within three seconds.

variable "freshet" {
  description = "The program freshet: an absolute path on the node."
  type        = string
}

variable "nats" {
  description = "NATS servers, such as nats://10.0.0.4:4222."
  type        = string
}

variable "nomad" {
  description = "Nomad's address. Where ACLs are on, the job's NOMAD_TOKEN needs a policy that may submit and scale jobs."
  type        = string
  default     = "http://127.0.0.1:4646"
}

variable "instances" {
  description = "How many. Each on a node of its own."
  type        = number
  default     = 1
}

variable "port" {
  description = "Where each listens."
  type        = number
  default     = 8601
}

job "autoscaler" {
  type        = "service"
  datacenters = ["*"]
  priority    = 90 # above every function

  group "autoscaler" {
    count = var.instances

    constraint {
      distinct_hosts = true
    }

    network {
      mode = "host"

      port "http" {
        static = var.port
      }
    }

    service {
      name     = "autoscaler"
      port     = "http"
      provider = "nomad"
    }

    # One after the other: the others go on meanwhile.
    update {
      max_parallel     = 1
      min_healthy_time = "2s"
    }

    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    task "autoscaler" {
      driver       = "raw_exec" # or exec
      kill_timeout = "30s"

      config {
        command = var.freshet
        args = [
          "autoscaler", "--listen", "127.0.0.1:${var.port}", "--nats", var.nats, "--nomad", var.nomad,
        ]
      }

      # Passwords come as variables: arguments are everybody's to read.
      template {
        destination = "secrets/env"
        env         = true
        change_mode = "restart"
        data        = <<-END
        FRESHET_NATS_USER=autoscaler
        {{ with nomadVar "nomad/jobs/autoscaler" }}
        FRESHET_NATS_PASSWORD={{ .nats }}
        {{ end }}
        END
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
