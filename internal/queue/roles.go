package queue

// Role is a component that connects to NATS, with a user of its own.
type Role string

// The roles.
const (
	RoleGateway    Role = "gateway"
	RoleAutoscaler Role = "autoscaler"
	RoleWorker     Role = "worker"
)

// Permissions are the subjects that a role may publish to and subscribe to. User code has none: it never sees NATS.
type Permissions struct {
	Publish   []string
	Subscribe []string
}

// Permissions of the role; none for one that is not known.
func (r Role) Permissions() Permissions {
	switch r {
	case RoleGateway:
		return Permissions{
			Publish: []string{
				"freshet.calls.>", "freshet.demand.>", "freshet.results.>", "freshet.batches.>", "freshet.cancels.>", "freshet.dead.>",
				"$JS.API.>", "$KV." + KeysBucket + ".>", "$KV." + TokensBucket + ".>", "$KV." + SchedulesBucket + ".>",
				"$KV." + DeploysBucket + ".>", "$KV." + PoolsBucket + ".>", "$KV." + ToldBucket + ".>", "freshet.callbacks.*", "$JS.ACK.>", "$JS.FC.>", AllControl, AllWhy,
			},
			Subscribe: []string{"_INBOX.>", "freshet.reply.>", "freshet.workers.>", "freshet.results.>", "freshet.yields.*", "freshet.logs.>", "freshet.events.>"},
		}
	case RoleAutoscaler:
		return Permissions{
			Publish: []string{
				"$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.>", "$JS.API.INFO", "freshet.events.>", AllControl,
				LeaseSubject(">"), "$JS.API.DIRECT.GET.KV_" + LeaseBucket + ".>", AllWhy, "_INBOX.>",
			},
			Subscribe: []string{"_INBOX.>", AllDemand, AllWorkers, LeaseSubject(">"), AllWhy},
		}
	case RoleWorker:
		return Permissions{
			Publish: []string{
				"freshet.results.>", "freshet.attempts.*", "freshet.dead.>", "freshet.yields.*", "freshet.callbacks.*", "freshet.reply.*.*", WatchedSubject("*", "*"), "freshet.workers.>", "freshet.logs.>", "freshet.events.>",
				"$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.ACK.>",
				"$JS.API.STREAM.MSG.GET." + ResultsStream, "$JS.API.INFO",
				"$JS.API.DIRECT.GET." + CancelsStream,
				"$KV." + KeysBucket + "." + suspectPrefix + "*", "$JS.API.STREAM.INFO.KV_" + KeysBucket, "$JS.API.DIRECT.GET.KV_" + KeysBucket + ".>",
			},
			Subscribe: []string{"_INBOX.>", AllStoredBy("*"), AllControl, "freshet.cancels.>"},
		}
	}
	return Permissions{}
}
