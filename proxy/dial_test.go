package proxy_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/wallcrawler/wallcrawler/proxy"
)

func TestTheDialerReachesContainersOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	here := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	conn, err := proxy.NewDialer(here)(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("an allowed address: %v", err)
	}
	_ = conn.Close()
	for name, c := range map[string]struct {
		allowed []netip.Prefix
		host    string
	}{
		"loopback by default":      {nil, "127.0.0.1"},
		"a name of loopback":       {nil, "localhost"},
		"IPv6 loopback by default": {nil, "::1"},
		"metadata by default":      {nil, "169.254.169.254"},
		"metadata although open":   {[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, "169.254.170.2"},
		"unspecified":              {[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, "0.0.0.0"},
		"multicast":                {[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, "224.0.0.1"},
		"another network":          {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "127.0.0.1"},
		"IPv6 link-local":          {nil, "fe80::1"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := proxy.NewDialer(c.allowed)(t.Context(), "tcp", net.JoinHostPort(c.host, port))
			if err == nil {
				_ = conn.Close()
				t.Error("was dialled")
			}
		})
	}
}
