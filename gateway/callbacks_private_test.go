package gateway

import "testing"

// TestPrivateNetworksAreNotTold: that a request is refused cannot be seen from outside.
func TestPrivateNetworksAreNotTold(t *testing.T) {
	for address, public := range map[string]bool{
		"93.184.216.34:443": true, "[2606:2800:220:1::1]:443": true,
		"127.0.0.1:80": false, "10.1.2.3:443": false, "192.168.0.1:80": false, "169.254.169.254:80": false, "[::1]:80": false,
		"[::ffff:127.0.0.1]:80": false, "100.100.0.1:80": false, "0.0.0.0:80": false, "[fd00::1]:80": false, "224.0.0.1:80": false, "x": false,
	} {
		if got := checkPublic(address) == nil; got != public {
			t.Errorf("%s: public %v, want %v", address, got, public)
		}
	}
}
