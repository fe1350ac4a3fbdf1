# A gateway, the way in for callers. Copy this file, and run it:
#
#   nomad var put nomad/jobs/gateway nats=PASSWORD root_token=TOKEN callback_secret=SECRET
#   nomad job run -var freshet=/usr/local/bin/freshet -var nats=nats://nats.example:4222 jobspecs/system/gateway.nomad.hcl
#
# It keeps nothing: any number of them may run, behind a balancer or by DNS. With the root token others are made: `freshet token create`.

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

variable "blobs" {
  description = "The blob store, which every gateway and node reaches, such as file:///srv/freshet/blobs on a file system that they share."
  type        = string
}

variable "replicas" {
  description = "Copies of each stream: 3 where NATS has three servers."
  type        = number
  default     = 1
}

variable "address" {
  description = "The address to listen on. A balancer with TLS stands before it, or it serves TLS itself: see docs/web.md."
  type        = string
  default     = "0.0.0.0"
}

variable "instances" {
  description = "How many. Each on a node of its own."
  type        = number
  default     = 1
}

variable "port" {
  description = "Where each listens."
  type        = number
  default     = 8600
}

job "gateway" {
  type        = "service"
  datacenters = ["*"]
  priority    = 90 # above every function

  group "gateway" {
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
      name     = "gateway"
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

    task "gateway" {
      driver       = "raw_exec" # or exec
      kill_timeout = "30s"

      config {
        command = var.freshet
        args = [
          "gateway", "--listen", "${var.address}:${var.port}", "--nats", var.nats, "--nomad", var.nomad,
          "--blobs", var.blobs, "--replicas", "${var.replicas}", "--auth", "on",
        ]
      }

      # Passwords come as variables: arguments are everybody's to read.
      template {
        destination = "secrets/env"
        env         = true
        change_mode = "restart"
        data        = <<-END
        FRESHET_NATS_USER=gateway
        {{ with nomadVar "nomad/jobs/gateway" }}
        FRESHET_NATS_PASSWORD={{ .nats }}
        FRESHET_ROOT_TOKEN={{ .root_token }}
        FRESHET_CALLBACK_SECRET={{ .callback_secret }}
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
