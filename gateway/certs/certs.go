// Package certs gets the certificates of a gateway's host names when the first client asks for them: from an ACME authority, or from a
// local one whose certificate people who try it out can trust.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// Config is what certificates are made by.
type Config struct {
	// Dir keeps keys and certificates, readable by their owner only. Gateways that share it share them.
	Dir string
	// Serves tells whether a host name is one of the gateway's: nothing is ordered for others.
	Serves func(host string) bool
	// ACME is the authority's directory, such as https://acme-v02.api.letsencrypt.org/directory; empty for the local authority. Using one
	// means to agree to its terms.
	ACME string
	// Email is what the authority may write to; may be empty.
	Email string
}

// Certs are a gateway's certificates. Open makes them, Close ends the work on them.
type Certs struct {
	cache *certmagic.Cache
	magic *certmagic.Config
	acme  *certmagic.ACMEIssuer // nil with a local authority
}

var errForeign = errors.New("the host name is none of this gateway's")

// Open begins to look after certificates.
func Open(config Config) (*Certs, error) {
	c := &Certs{}
	quiet := zap.NewNop() // what does not work is told to the client's handshake
	c.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return c.magic, nil },
		Logger:           quiet,
	})
	c.magic = certmagic.New(c.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: config.Dir}, Logger: quiet,
		OnDemand: &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
			if !config.Serves(name) {
				return fmt.Errorf("certificate for %s: %w", name, errForeign)
			}
			return nil
		}},
	})
	if config.ACME != "" {
		c.acme = certmagic.NewACMEIssuer(c.magic, certmagic.ACMEIssuer{CA: config.ACME, TestCA: config.ACME, Email: config.Email, Agreed: true, Logger: quiet})
		c.magic.Issuers = []certmagic.Issuer{c.acme}
		return c, nil
	}
	local, err := openAuthority(config.Dir)
	if err != nil {
		c.cache.Stop()
		return nil, err
	}
	c.magic.Issuers = []certmagic.Issuer{local}
	return c, nil
}

// TLS is for servers of HTTP/1.1 and HTTP/2.
func (c *Certs) TLS() *tls.Config {
	config := c.magic.TLSConfig()
	config.MinVersion = tls.VersionTLS12
	config.NextProtos = append([]string{"h2", "http/1.1"}, config.NextProtos...)
	return config
}

// Challenges lets the authority see by plain HTTP that the host names are the gateway's; everything else is next's.
func (c *Certs) Challenges(next http.Handler) http.Handler {
	if c.acme == nil {
		return next
	}
	return c.acme.HTTPChallengeHandler(next)
}

// Close ends the work on the certificates.
func (c *Certs) Close() { c.cache.Stop() }
