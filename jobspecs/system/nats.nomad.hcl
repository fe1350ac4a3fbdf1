# NATS, which keeps calls and results. Copy this file, and run it:
#
#   nomad var put nomad/jobs/nats gateway=PASSWORD autoscaler=PASSWORD worker=PASSWORD
#   nomad job run -var server=/usr/local/bin/nats-server jobspecs/system/nats.nomad.hcl
#
# One server survives the end of every process. Three on nodes of their own survive the loss of one: add a `cluster` block to the
# configuration, and --replicas 3 to the gateway. docs/calls.md says what each way survives, and what it costs.

variable "server" {
  description = "nats-server 2.12 or newer: an absolute path on the node."
  type        = string
}

variable "data" {
  description = "Where calls and results are kept: a directory on the node that outlives the job."
  type        = string
}

variable "port" {
  description = "Where it listens."
  type        = number
  default     = 4222
}

variable "address" {
  description = "The address that gateways, autoscalers and nodes reach it at."
  type        = string
  default     = "0.0.0.0"
}

job "nats" {
  type        = "service"
  datacenters = ["*"]
  priority    = 90 # above every function

  group "nats" {
    count = 1

    # A new version stops the old one first: two must not write one directory.
    update {
      max_parallel = 1
    }

    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    task "nats" {
      driver       = "raw_exec" # or exec, with the data directory as a volume
      kill_timeout = "30s"

      config {
        command = var.server
        args    = ["-c", "secrets/nats.conf"]
      }

      # The users of freshet's parts, each with no more than its subjects. User code never sees NATS.
      template {
        destination = "secrets/nats.conf"
        change_mode = "restart"
        data        = <<-END
        server_name: "{{ env "node.unique.name" }}"
        listen: "${var.address}:${var.port}"
        jetstream { store_dir: "${var.data}" }
        max_payload: 1114112
        max_pending: 256MB # a slow consumer is a gateway on a loaded machine
        write_deadline: "30s"
        no_sublist_cache: true # almost every subject is one call's alone
        authorization { users: [
          {
            user: "gateway", password: "{{ with nomadVar "nomad/jobs/nats" }}{{ .gateway }}{{ end }}"
            permissions: {
              publish: [
                "freshet.calls.>",
                "freshet.demand.>",
                "freshet.results.>",
                "freshet.batches.>",
                "freshet.cancels.>",
                "freshet.dead.>",
                "$JS.API.>",
                "$KV.FRESHET_KEYS.>",
                "$KV.FRESHET_TOKENS.>",
                "$KV.FRESHET_SCHEDULES.>",
                "$KV.FRESHET_DEPLOYS.>",
                "$KV.FRESHET_POOLS.>",
                "$KV.FRESHET_TOLD.>",
                "freshet.callbacks.*",
                "$JS.ACK.>",
                "$JS.FC.>",
                "freshet.control.>",
                "freshet.why.>",
              ]
              subscribe: [
                "_INBOX.>",
                "freshet.reply.>",
                "freshet.workers.>",
                "freshet.results.>",
                "freshet.yields.*",
                "freshet.logs.>",
                "freshet.events.>",
              ]
            }
          }
          {
            user: "autoscaler", password: "{{ with nomadVar "nomad/jobs/nats" }}{{ .autoscaler }}{{ end }}"
            permissions: {
              publish: [
                "$JS.API.STREAM.LIST",
                "$JS.API.STREAM.INFO.>",
                "$JS.API.INFO",
                "freshet.events.>",
                "freshet.control.>",
                "$KV.FRESHET_LEASE.>",
                "$JS.API.DIRECT.GET.KV_FRESHET_LEASE.>",
                "freshet.why.>",
                "_INBOX.>",
              ]
              subscribe: [
                "_INBOX.>",
                "freshet.demand.>",
                "freshet.workers.>",
                "$KV.FRESHET_LEASE.>",
                "freshet.why.>",
              ]
            }
          }
          {
            user: "worker", password: "{{ with nomadVar "nomad/jobs/nats" }}{{ .worker }}{{ end }}"
            permissions: {
              publish: [
                "freshet.results.>",
                "freshet.attempts.*",
                "freshet.dead.>",
                "freshet.yields.*",
                "freshet.callbacks.*",
                "freshet.reply.*.*",
                "freshet.reply.*.watched.*",
                "freshet.workers.>",
                "freshet.logs.>",
                "freshet.events.>",
                "$JS.API.CONSUMER.CREATE.>",
                "$JS.API.CONSUMER.INFO.>",
                "$JS.API.CONSUMER.MSG.NEXT.>",
                "$JS.ACK.>",
                "$JS.API.STREAM.MSG.GET.FRESHET_RESULTS",
                "$JS.API.INFO",
                "$JS.API.DIRECT.GET.FRESHET_CANCELS",
                "$KV.FRESHET_KEYS.suspect.*",
                "$JS.API.STREAM.INFO.KV_FRESHET_KEYS",
                "$JS.API.DIRECT.GET.KV_FRESHET_KEYS.>",
              ]
              subscribe: [
                "_INBOX.>",
                "freshet.reply.*.stored.*.*.*",
                "freshet.control.>",
                "freshet.cancels.>",
              ]
            }
          }
        ] }
        END
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
