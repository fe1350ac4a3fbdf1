package main

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/gateway/certs"
)

// webOptions are a gateway's host names, and how it serves them with TLS.
type webOptions struct {
	domain, listen, dir, acme, email string
}

func (o *webOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.domain, "web-domain", "", "domain below which functions with web endpoints are app--function (default: none, and no host names)")
	cmd.Flags().StringVar(&o.listen, "tls-listen", "", "address to listen on with TLS too (default: none)")
	cmd.Flags().StringVar(&o.dir, "tls-dir", "", "directory of keys and certificates")
	cmd.Flags().StringVar(&o.acme, "acme", "",
		"ACME directory that issues certificates, such as https://acme-v02.api.letsencrypt.org/directory (default: a local authority, ca.pem in --tls-dir)")
	cmd.Flags().StringVar(&o.email, "acme-email", "", "whom the authority may write to")
}

func (o *webOptions) check(cmd *cobra.Command) error {
	if o.listen == "" {
		return nil
	}
	if o.dir == "" {
		return usagef(cmd, "--tls-dir: name the directory of keys and certificates")
	}
	if o.domain == "" {
		return usagef(cmd, "--web-domain: name the domain that is served with TLS")
	}
	return nil
}

// serveWeb serves the gateway, with TLS too where that is wanted, until the context ends.
func serveWeb(ctx context.Context, address string, o webOptions, g *gateway.Gateway, log zerolog.Logger) error {
	if o.listen == "" {
		return serveHTTP(ctx, address, g.Handler(), log)
	}
	made, err := certs.Open(certs.Config{Dir: o.dir, Serves: gateway.HostNames(g), ACME: o.acme, Email: o.email})
	if err != nil {
		return err
	}
	defer made.Close()
	plain, err := listen(ctx, address)
	if err != nil {
		return err
	}
	secure, err := listen(ctx, o.listen)
	if err != nil {
		return errors.Join(err, plain.Close())
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return serveOn(ctx, plain, made.Challenges(g.Handler()), log) })
	both.Go(func() error { return serveOn(ctx, tls.NewListener(secure, made.TLS()), g.Handler(), log) })
	return both.Wait()
}
