package state_test

import (
	"net/netip"
	"testing"

	"github.com/wallcrawler/wallcrawler/state"
)

func TestClaimWithinNetworks(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		ip   string
		port int
		want string // empty: refused
	}{
		{"10.0.3.17", 8080, "10.0.3.17:8080"}, {"10.0.255.255", 1, "10.0.255.255:1"}, {"fd00::1", 8080, "[fd00::1]:8080"},
		{"localhost", 8080, "127.0.0.1:8080"}, {"127.0.0.7", 8080, "127.0.0.7:8080"}, {"::ffff:10.0.0.1", 8080, "10.0.0.1:8080"},
		{"10.1.0.1", 8080, ""}, {"169.254.169.254", 80, ""}, {"::1", 8080, ""}, {"fd00::1%eth0", 8080, ""}, {"", 8080, ""},
		{"10.0.3.17:80", 8080, ""}, {"010.0.3.17", 8080, ""}, {"10.0.3", 8080, ""}, {"0x0a000311", 8080, ""}, {"LOCALHOST", 8080, ""},
		{"container.internal", 8080, ""}, {"10.0.3.17", 0, ""}, {"10.0.3.17", -1, ""}, {"10.0.3.17", 65536, ""}, {"8.8.8.8", 8080, ""},
	} {
		addr, err := state.Claim{IP: c.ip, Port: c.port}.Within(networks)
		if (err == nil) != (c.want != "") || err == nil && addr.String() != c.want {
			t.Errorf("%q port %d: got %v, %v, want %q", c.ip, c.port, addr, err, c.want)
		}
	}
	if _, err := (state.Claim{IP: "10.0.3.17", Port: 8080}).Within(nil); err == nil {
		t.Error("an address in no networks at all: taken")
	}
}
