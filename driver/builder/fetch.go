package builder

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/image/build"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// fetcher fetches what ADD takes from an address, in the network of the steps: it reaches what they do, and nothing more.
type fetcher struct {
	namespace string
	resolver  *net.Resolver
	client    *http.Client
}

func newFetcher(task handoff.Task) *fetcher {
	f := &fetcher{namespace: task.Network.Namespace}
	servers := nameservers(task.Files)
	f.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if len(servers) == 0 {
			return nil, errors.New("the steps' network has no name server")
		}
		var failed error
		for _, server := range servers {
			conn, err := f.dial(ctx, network, net.JoinHostPort(server, "53"))
			if err == nil {
				return conn, nil
			}
			failed = errors.Join(failed, err)
		}
		return nil, failed
	}}
	env := task.Build.Env
	proxy := (&httpproxy.Config{
		HTTPProxy:  cmp.Or(env["http_proxy"], env["HTTP_PROXY"]),
		HTTPSProxy: cmp.Or(env["https_proxy"], env["HTTPS_PROXY"]),
		NoProxy:    cmp.Or(env["no_proxy"], env["NO_PROXY"]),
	}).ProxyFunc()
	f.client = &http.Client{Transport: &http.Transport{
		Proxy:           func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		TLSClientConfig: &tls.Config{RootCAs: authorities(task.Build), MinVersion: tls.VersionTLS12},
		DialContext:     f.connect, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, DisableKeepAlives: true,
	}}
	return f
}

// authorities are the certificates that the operator gives to steps, beside the node's; nil for the node's alone.
func authorities(given *handoff.Build) *x509.CertPool {
	for _, file := range given.Files {
		if file.Target != given.Env["SSL_CERT_FILE"] {
			continue
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM([]byte(file.Content))
		return pool
	}
	return nil
}

// nameservers are those of the steps' /etc/resolv.conf.
func nameservers(files []handoff.File) []string {
	var servers []string
	for _, file := range files {
		if file.Target != "/etc/resolv.conf" {
			continue
		}
		for line := range strings.Lines(file.Content) {
			if words := strings.Fields(line); len(words) > 1 && words[0] == "nameserver" {
				servers = append(servers, words[1])
			}
		}
	}
	return servers
}

// fetch opens an address; the caller closes it.
func (f *fetcher) fetch(ctx context.Context, address string) (build.Download, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return build.Download{}, err
	}
	answer, err := f.client.Do(request) //nolint:bodyclose // the caller closes it
	if err != nil {
		return build.Download{}, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close() // what it says is for nobody
		return build.Download{}, errors.New(answer.Status)
	}
	modified, err := http.ParseTime(answer.Header.Get("Last-Modified"))
	if err != nil {
		modified = time.Time{}
	}
	return build.Download{ReadCloser: answer.Body, Modified: modified}, nil
}

// connect finds the addresses of a host and connects to the first that answers.
func (f *fetcher) connect(ctx context.Context, network, hostPort string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	addresses := []string{host}
	if net.ParseIP(host) == nil {
		if addresses, err = f.resolver.LookupHost(ctx, host); err != nil {
			return nil, err
		}
	}
	var failed error
	for _, address := range addresses {
		conn, err := f.dial(ctx, network, net.JoinHostPort(address, port))
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// dial connects to an address in the namespace: a socket stays in the one that its thread was in when it was made.
func (f *fetcher) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if f.namespace == "" {
		return nil, errors.New("the build has no network")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = enter(f.namespace); err == nil {
			conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		}
	}()
	<-done
	return conn, err
}

func enter(namespace string) error {
	fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing is written to it
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}
