package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// A server of its own protocol; package web has one for every http.Handler.
func ExampleServer() {
	app := freshet.New("echo")
	freshet.Server(app, "server", func(ctx context.Context, listener net.Listener) error {
		stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
		defer stop()
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}, freshet.Public(), freshet.Domains("echo.example.org"), freshet.Origins("https://example.org"), freshet.Concurrency(10))

	manifest, err := app.Manifest()
	if err != nil {
		fmt.Println(err)
		return
	}
	f := manifest.Functions[0]
	fmt.Println(f.Concurrency, f.Web.Public, f.Web.Domains, f.Web.Origins)
	// Output: 10 true [echo.example.org] [https://example.org]
}
