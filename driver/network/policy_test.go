package network_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestDestinations(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":          "10.0.0.0/8",
		"10.0.0.0/8:443":      "10.0.0.0/8:443",
		"10.1.2.3/8:443":      "10.0.0.0/8:443",
		"10.1.2.3":            "10.1.2.3/32",
		"10.1.2.3:4222":       "10.1.2.3/32:4222",
		"0.0.0.0/0":           "0.0.0.0/0",
		"2001:db8::/32":       "2001:db8::/32",
		"[2001:db8::/32]:443": "[2001:db8::/32]:443",
		"[2001:db8::1]:443":   "[2001:db8::1/128]:443",
		"":                    "",
		"10.0.0.0/33":         "",
		"10.0.0.0/8:":         "",
		"10.0.0.0/8:0":        "",
		"10.0.0.0/8:65536":    "",
		"10.0.0.0/8:https":    "",
		"example.com:443":     "",
		"10.0.0.0/8:443:80":   "",
		"fe80::1%eth0":        "",
		":443":                "",
		"10.0.0.0/8-10.0.0.9": "",
		"10.0.0.0 /8":         "",
	} {
		got, err := network.ParseDestination(text)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v, want %q", text, got, err, want)
		}
	}
}

func TestDestinationsAreReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")
		if rapid.Bool().Draw(t, "IPv6") {
			bytes = slices.Concat(bytes, bytes, bytes, bytes)
		}
		addr, _ := netip.AddrFromSlice(bytes)
		prefix := netip.PrefixFrom(addr, rapid.IntRange(0, addr.BitLen()).Draw(t, "bits")).Masked()
		want := network.Destination{Prefix: prefix, Port: rapid.Uint16().Draw(t, "port")}
		if got, err := network.ParseDestination(want.String()); err != nil || got != want {
			t.Fatalf("%v is read as %v, %v", want, got, err)
		}
	})
}

func FuzzParseDestination(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8:443", "[2001:db8::/32]:443", "1.2.3.4", ":", "[]:1", "::/0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := network.ParseDestination(text)
		if err != nil {
			return
		}
		if again, err := network.ParseDestination(d.String()); err != nil || again != d {
			t.Errorf("%q is %v, which is read as %v, %v", text, d, again, err)
		}
	})
}

func TestPolicyOfASpec(t *testing.T) {
	policy, err := network.PolicyFor(spec.Network{Egress: true, Allow: []string{"10.0.0.0/8:443", "1.1.1.1/32"}})
	if err != nil || len(policy.Allow) != 2 || policy.Allow[0].Port != 443 || !policy.Egress {
		t.Errorf("%+v, %v", policy, err)
	}
	for _, bad := range []spec.Network{
		{Egress: true, Allow: []string{"everything"}},
		{Egress: true, Allow: []string{"2001:db8::/32"}},
		{Allow: []string{"10.0.0.0/8"}},
	} {
		var field spec.FieldError
		if _, err := network.PolicyFor(bad); !errors.As(err, &field) {
			t.Errorf("%+v: %v, want an error of a field", bad, err)
		}
	}
}

func TestResolversOfAFile(t *testing.T) {
	const file = "# mine\nnameserver 127.0.0.53\nnameserver\t10.0.0.2 # first\nnameserver ::1\nnameserver 10.0.0.2\nnameserver 1.1.1.1\noptions edns0\nnameserver x\nnameserver\n"
	want := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("1.1.1.1")}
	if got := network.ParseResolvers(file); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
