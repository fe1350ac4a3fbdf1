package local

import (
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/freshet-dev/freshet/internal/queue"
)

// NATSOptions are the embedded NATS server's: JetStream in the state directory and a user for each role with no more than
// its subjects.
func (s *State) NATSOptions() *server.Options {
	return &server.Options{
		ServerName: "freshet",
		Host:       "127.0.0.1",
		Port:       s.Ports.NATS,
		JetStream:  true,
		StoreDir:   s.path("nats"),
		MaxPayload: queue.MaxMessage,
		// A slow consumer here is a gateway on a loaded machine: rather buffer than cut it off.
		MaxPending:    256 << 20,
		WriteDeadline: 30 * time.Second,
		// Almost every subject here is one call's alone: remembering who listens to it is work for nothing.
		NoSublistCache:        true,
		NoSigs:                true,
		DisableShortFirstPing: true,
		Users:                 s.natsUsers(),
	}
}

func (s *State) natsUsers() []*server.User {
	var users []*server.User
	for role, password := range s.Passwords {
		allowed := role.Permissions()
		users = append(users, &server.User{
			Username: string(role),
			Password: password,
			Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: allowed.Publish},
				Subscribe: &server.SubjectPermission{Allow: allowed.Subscribe},
			},
		})
	}
	return users
}
