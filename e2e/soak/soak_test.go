//go:build linux

package main

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// A short soak of a few sessions comes to its end, and to a verdict on everything.
func TestASoakComesToItsEnd(t *testing.T) {
	g := &stage.Stage{Tmp: t.TempDir()}
	g.Binary = filepath.Join(g.Tmp, "wallcrawler")
	if err := stage.Build(t.Context(), g.Binary, "-race"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	// So short a time says nothing about slopes, nor a machine that is busy about the traffic.
	_, err := soak(t.Context(), g, 40, 6*time.Second, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, line := range []string{"ok   clients were never cut nor misled", "ok   every session still answers", "ok   the service has complained of nothing", "ok   nothing is left when all have left"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("it does not say %q:\n%s", line, &out)
		}
	}
	if !strings.HasSuffix(out.String(), " failed\n") {
		t.Errorf("the last line is no verdict:\n%s", &out)
	}
}

func TestALineIsFittedToWhatGrowsAndNotToSpikes(t *testing.T) {
	t.Parallel()
	var x, flat, rising []float64
	for i := range 100 {
		v := 1000.0
		if i%10 == 9 {
			v += 5000 // every tenth sample finds the pings
		}
		x, flat, rising = append(x, float64(i)), append(flat, v), append(rising, v+3*float64(i))
	}
	if slope, at := fit(x, flat); slope != 0 || at(50) != 1000 {
		t.Errorf("flat: %v, %v", slope, at(50))
	}
	if slope, at := fit(x, rising); math.Abs(slope-3) > 1e-9 || math.Abs(at(10)-1030) > 1e-9 {
		t.Errorf("rising: %v, %v", slope, at(10))
	}
}

func TestATrendIsToldFromChance(t *testing.T) {
	t.Parallel()
	var rising, scattered []float64
	chance := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		v := chance.Float64()
		scattered, rising = append(scattered, v), append(rising, v+float64(len(rising))/20)
	}
	if z := trend(scattered); math.Abs(z) > 2 {
		t.Errorf("chance alone is a trend of %v", z)
	}
	if z := trend(rising); z < sure {
		t.Errorf("what rises by three times its scatter is a trend of %v", z)
	}
}

func TestWhatGrowsFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		perSample int
		scatter   int
		failed    int
	}{
		"nothing grows":                      {0, 0, 0},
		"a goroutine for every sample or so": {3, 0, 1},
		"it shrinks":                         {-3, 0, 0},
		"it scatters":                        {0, 4000, 0},
		"it grows and scatters":              {3, 400, 1},
	} {
		var all []sample
		chance := rand.New(rand.NewPCG(1, 7)) // whose scatter rises by more than is allowed
		for i := range 150 {
			all = append(all, sample{time.Duration(i) * 12 * time.Second, stage.Vitals{Resident: 100e6, Files: 20_000, Goroutines: 1000 + c.perSample*i + chance.IntN(c.scatter+1)}})
		}
		v := &verdicts{out: io.Discard}
		for _, q := range quantities() {
			v.judgeSlope(q, all, 30*time.Minute)
		}
		if v.failed != c.failed || v.passed != len(quantities())-c.failed {
			t.Errorf("%s: %d passed, %d failed", name, v.passed, v.failed)
		}
	}
}

func TestTooLittleTrafficFails(t *testing.T) {
	t.Parallel()
	c := &crowd{clients: make([]*client, 100)}
	const length = 1000 * time.Second
	c.messages.Store(2500)
	c.comings.Store(300)
	c.sessions.Store(250)
	if err := c.moved(length); err != nil {
		t.Errorf("enough: %v", err)
	}
	for name, n := range map[string]*atomic.Int64{"messages": &c.messages, "connections": &c.comings, "sessions": &c.sessions} {
		enough := n.Swap(100)
		if c.moved(length) == nil {
			t.Errorf("few %s are enough", name)
		}
		n.Store(enough)
	}
}

// A session whose browser does not answer any more is lost, though nobody has cut its client.
func TestWhoDoesNotAnswerTheRollCallIsLost(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc((&backend{}).serve))
	defer server.Close()
	c := &crowd{}
	for i := range 3 {
		one := &client{crowd: c, n: i, url: "ws" + strings.TrimPrefix(server.URL, "http")}
		var err error
		if one.conn, err = c.connect(t.Context(), one.url); err != nil {
			t.Fatal(err)
		}
		c.clients = append(c.clients, one)
	}
	defer c.leave(t.Context())
	if err := c.rollCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = c.clients[1].conn.ws.Close()
	if err := c.rollCall(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "1 times: client 1") {
		t.Errorf("it was said: %v", err)
	}
}
