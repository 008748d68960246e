package main

import (
	"net"
	"net/netip"
	"testing"
)

func TestPeerAddress(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("10.0.3.17")}
	for listener, want := range map[string]string{
		"127.0.0.5:8080": "127.0.0.5:8080",
		"10.1.2.3:80":    "10.1.2.3:80",
		"0.0.0.0:8080":   "10.0.3.17:8080",
		"[::]:8080":      "10.0.3.17:8080",
		"[fd00::1]:8080": "[fd00::1]:8080",
	} {
		addr, err := net.ResolveTCPAddr("tcp", listener)
		if err != nil {
			t.Fatal(err)
		}
		if got := peerAddress(addr, own); got != want {
			t.Errorf("%s is reached at %s, want %s", listener, got, want)
		}
	}
	if got := peerAddress(&net.TCPAddr{IP: net.IPv6unspecified, Port: 1}, nil); got != "127.0.0.1:1" {
		t.Errorf("without a network it is reached at %s", got)
	}
}
