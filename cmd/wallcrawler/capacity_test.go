package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestHowManyClientsFit(t *testing.T) {
	for name, c := range map[string]struct {
		asked, files int
		memory       int64
		clients      int
		refused      bool
	}{
		"twenty thousand files":     {files: 20_000, memory: math.MaxInt64, clients: 9_900},
		"few files":                 {files: 256, memory: math.MaxInt64, clients: 96},
		"memory is the tighter one": {files: 1 << 20, memory: 564 << 20, clients: 5_120},
		"hardly any memory":         {files: 1 << 20, memory: 64 << 20, clients: 163},
		"fewer are wanted":          {asked: 50, files: 20_000, memory: math.MaxInt64, clients: 50},
		"more than fit are wanted":  {asked: 9_901, files: 20_000, memory: math.MaxInt64, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := capacityOf(c.asked, c.files, c.memory)
			if c.refused {
				if err == nil || !strings.Contains(err.Error(), "MAX_CLIENTS") {
					t.Fatalf("got %v, want a word about MAX_CLIENTS", err)
				}
				return
			}
			if err != nil || got.clients != c.clients {
				t.Errorf("got %d, %v, want %d", got.clients, err, c.clients)
			}
			if got.files >= c.files || got.files < 2*got.clients {
				t.Errorf("clients may take %d of %d files", got.files, c.files)
			}
		})
	}
}

func TestRelaySettingsAreChecked(t *testing.T) {
	for variable, name := range map[string]string{
		"MAX_CLIENTS=-1": "MAX_CLIENTS", "MAX_CLIENTS_PER_USER=-1": "MAX_CLIENTS_PER_USER", "MAX_CLIENTS=100000000": "MAX_CLIENTS",
		"CLIENT_PING=26s": "CLIENT_PING", "CLIENT_PING=0s": "CLIENT_PING", "STALLED_CLIENT_TIMEOUT=11m": "STALLED_CLIENT_TIMEOUT",
		"DRAIN_TIMEOUT=106s": "DRAIN_TIMEOUT",
	} {
		c, err := loadConfig(serveSettings(), "", []string{variable})
		if err != nil {
			t.Fatal(err)
		}
		o := options{unreadyFor: c.GetDuration("unready_for"), drainTimeout: c.GetDuration("drain_timeout")}
		if err := o.relayLimits(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", variable, err)
		}
	}
	c, err := loadConfig(serveSettings(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	o := options{unreadyFor: 5 * time.Second, drainTimeout: 100 * time.Second}
	if err := o.relayLimits(c); err != nil || o.capacity.clients == 0 {
		t.Errorf("by default: %d clients, %v", o.capacity.clients, err)
	}
}

func TestTLSSettingsAreChecked(t *testing.T) {
	if cfg, err := readCertificate("", ""); cfg != nil || err != nil {
		t.Errorf("without files: %v, %v", cfg, err)
	}
	for _, files := range [][2]string{{"cert.pem", ""}, {"", "key.pem"}, {"missing.pem", "missing.pem"}} {
		if _, err := readCertificate(files[0], files[1]); err == nil {
			t.Errorf("%q was accepted", files)
		}
	}
	if cfg, err := containerTLS("", ""); cfg != nil || err != nil {
		t.Errorf("without a name: %v, %v", cfg, err)
	}
	if cfg, err := containerTLS("browser", ""); err != nil || cfg.ServerName != "browser" || cfg.InsecureSkipVerify {
		t.Errorf("with the system's authorities: %+v, %v", cfg, err)
	}
	for _, c := range [][2]string{{"", "ca.pem"}, {"browser", "missing.pem"}, {"browser", "tls.go"}} {
		if _, err := containerTLS(c[0], c[1]); err == nil {
			t.Errorf("%q was accepted", c)
		}
	}
}

func TestAClientInALine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	c := client{OpenedAt: at, LastActivity: at.Add(time.Second), BytesToBrowser: 10, MessagesToBrowser: 1, BytesToClient: 20, MessagesToClient: 2}
	if got, want := c.text(), "2026-01-02 03:04:05, active 03:04:06; 1 messages (10 bytes) to the browser, 2 (20) back; open"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.Replica = "replica-1"
	if got := c.text(); !strings.HasPrefix(got, "through replica-1: 2026-01-02") {
		t.Errorf("got %q", got)
	}
	c.ClosedAt, c.ClosedBy, c.CloseCode, c.CloseReason = at.Add(time.Minute), "client", 4001, "done"
	if got := c.text(); !strings.HasSuffix(got, `; closed 03:05:05 by client (4001 "done")`) {
		t.Errorf("got %q", got)
	}
}
