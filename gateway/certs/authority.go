package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/certmagic"
)

// Files of the local authority. Whoever has the key can make certificates that those accept who trust it.
const (
	authorityFile = "ca.pem"
	keyFile       = "ca.key"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour
	// clockSkew is how far a client's clock may be behind.
	clockSkew = time.Hour
)

// authority issues certificates by itself.
type authority struct{ pair tls.Certificate }

// openAuthority reads the authority of a directory, or makes one.
func openAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of certificates: %w", err)
	}
	certificate, key := filepath.Join(dir, authorityFile), filepath.Join(dir, keyFile)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if errors.Is(err, os.ErrNotExist) {
		if err = makeAuthority(certificate, key); err == nil {
			pair, err = tls.LoadX509KeyPair(certificate, key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the local certificate authority: %w", err)
	}
	return &authority{pair}, nil
}

func makeAuthority(certificate, key string) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := template(authorityLife)
	if err != nil {
		return err
	}
	template.Subject = pkix.Name{CommonName: "freshet local authority " + time.Now().UTC().Format(time.DateOnly)}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	made, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}), 0o600)
}

func template(life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-clockSkew), NotAfter: now.Add(life)}, nil
}

// Issue implements certmagic.Issuer.
func (a *authority) Issue(_ context.Context, request *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	template, err := template(leafLife)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	template.DNSNames = request.DNSNames
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	made, err := x509.CreateCertificate(rand.Reader, template, a.pair.Leaf, request.PublicKey, a.pair.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.pair.Leaf.Raw})...)
	return &certmagic.IssuedCertificate{Certificate: chain}, nil
}

// IssuerKey implements certmagic.Issuer.
func (a *authority) IssuerKey() string { return "local" }
