package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

const (
	registerTimeout = 5 * time.Second
	firstRetry      = 100 * time.Millisecond
	maxRetry        = 2 * time.Second
	refusedRetry    = 2 * time.Second // after a refusal that may be about to be mended
	maxRefusals     = 5
	firstLink       = 10 * time.Second // from registration to the link
	nextLink        = 2 * time.Second  // from the loss of the link to another
	maxAnswer       = 64 << 10
)

// errRefused is an answer that another try will not change.
var errRefused = errors.New("refused for good")

// errDenied is an answer that says that this container is not known, perhaps not yet.
var errDenied = errors.New("refused")

// registrar keeps the container registered: at start, and again whenever no replica holds
// its link.
type registrar struct {
	// set once in newRegistrar
	url    string
	token  Secret
	body   wire.Registration
	client *http.Client
	log    *slog.Logger
	linked chan bool // the link opened or was lost; the latest alone counts

	mu     sync.Mutex // guards the following
	secret Secret
	busy   chan struct{} // closed when the registration under way is over; nil: none is
}

func newRegistrar(cfg Config, body wire.Registration, log *slog.Logger) *registrar {
	u, _ := registerURL(cfg.RegisterURL) // checked by Validate
	return &registrar{
		url: u, token: cfg.Token, body: body, log: log,
		client: &http.Client{
			Timeout: registerTimeout,
			// The token goes to the service that was named and to nobody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
		},
		linked: make(chan bool, 1),
		busy:   make(chan struct{}), // the first one is about to begin
	}
}

// registerURL makes the address of registration from the service's origin. A bare host:port
// is taken as http.
func registerURL(origin string) (string, error) {
	if !strings.Contains(origin, "://") {
		origin = "http://" + origin
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
		return "", errors.New("the address to register at is not an http or https URL without a password: set PROXY_ENDPOINT, e.g. http://10.0.0.5:8080")
	}
	u.RawQuery, u.Fragment = "", ""
	u.Path = strings.TrimSuffix(u.Path, "/")
	if !strings.HasSuffix(u.Path, wire.RegisterPath) {
		u.Path += wire.RegisterPath
	}
	return u.String(), nil
}

// setLinked takes note that there is a link, or that there is none any more.
func (r *registrar) setLinked(yes bool) {
	for {
		select {
		case r.linked <- yes:
			return
		default:
		}
		select {
		case <-r.linked:
		default:
		}
	}
}

// run keeps the container registered until ctx ends (nil) or the service will not have it.
func (r *registrar) run(ctx context.Context) error {
	for {
		if err := r.register(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if !r.awaitLoss(ctx) {
			return nil
		}
		r.log.Warn("link missing, registering again")
	}
}

// awaitLoss returns true when there has been no link for too long, false when ctx ends.
func (r *registrar) awaitLoss(ctx context.Context) bool {
	timer := time.NewTimer(firstLink)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case yes := <-r.linked:
			timer.Stop()
			if !yes {
				timer.Reset(nextLink)
			}
		case <-timer.C:
			return true
		}
	}
}

// register tries until it is done, refused for good, or ctx ends.
func (r *registrar) register(ctx context.Context) error {
	r.begin()
	defer r.end()
	wait, denials := firstRetry, 0
	for {
		err := r.once(ctx)
		if err == nil {
			return nil
		}
		pause := wait/2 + mathrand.N(wait/2)
		wait = min(2*wait, maxRetry)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errRefused):
			return err
		case errors.Is(err, errDenied):
			if denials++; denials == maxRefusals {
				return err
			}
			pause = refusedRetry/2 + mathrand.N(refusedRetry)
		}
		r.log.Warn("registration delayed", "error", err.Error(), "retryIn", pause.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// once sends one registration.
func (r *registrar) once(ctx context.Context) error {
	body, err := json.Marshal(r.body)
	if err != nil {
		return fmt.Errorf("encoding the registration: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("addressing the registration: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(wire.TokenHeader, string(r.token))
	resp, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("registering at the service: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer to the registration: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return r.accept(answer)
	case resp.StatusCode == http.StatusConflict, resp.StatusCode == http.StatusGone:
		return fmt.Errorf("the service will not have container %s (%s: %s): this task is of no use, start another: %w",
			r.body.ContainerID, resp.Status, excerpt(answer), errRefused)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("the service does not accept the token of container %s (%s: %s): CONTAINER_TOKEN must be the one that its launch was given: %w",
			r.body.ContainerID, resp.Status, excerpt(answer), errDenied)
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("registering at the service: it answered %s: %s", resp.Status, excerpt(answer))
	default:
		return fmt.Errorf("registering at %s: the answer was %s (%s): is PROXY_ENDPOINT this service's? %w",
			r.url, resp.Status, excerpt(answer), errDenied)
	}
}

func (r *registrar) accept(answer []byte) error {
	var reg wire.Registered
	if err := json.Unmarshal(answer, &reg); err != nil || reg.LinkSecret == "" {
		return fmt.Errorf("registering at %s: the answer has no link secret: is the service older than protocol %d? %w",
			r.url, wire.Protocol, errDenied)
	}
	r.mu.Lock()
	r.secret = Secret(reg.LinkSecret)
	r.mu.Unlock()
	r.log.Info("container registered", "ownerSeq", reg.OwnerSeq)
	return nil
}

func (r *registrar) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy == nil {
		r.busy = make(chan struct{})
	}
}

func (r *registrar) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.busy)
	r.busy = nil
}

// authorized tells whether req carries the link secret. The service may dial before its
// answer has been read here, so a stranger's secret is looked at again once the registration
// under way is over.
func (r *registrar) authorized(req *http.Request) bool {
	given, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || given == "" {
		return false
	}
	good, busy := r.compare(given)
	if good || busy == nil {
		return good
	}
	timer := time.NewTimer(maxRetry)
	defer timer.Stop()
	select {
	case <-busy:
	case <-timer.C:
	case <-req.Context().Done():
	}
	good, _ = r.compare(given)
	return good
}

func (r *registrar) compare(given string) (bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.secret != "" && subtle.ConstantTimeCompare([]byte(given), []byte(r.secret)) == 1, r.busy
}

// taskInfo is what ECS tells a task about itself. Both may be empty.
type taskInfo struct{ arn, ip string }

// readTask asks the task metadata endpoint. Without an answer the agent serves all the same:
// the service knows the task from ECS.
func readTask(ctx context.Context, metadata string, log *slog.Logger) taskInfo {
	if metadata == "" {
		return taskInfo{}
	}
	var answer struct {
		TaskARN    string
		Containers []struct {
			Networks []struct{ IPv4Addresses []string }
		}
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	get := func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(metadata, "/")+"/task", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer)
	}
	if err := get(); err != nil {
		log.Warn("task metadata unavailable", "error", err.Error())
		return taskInfo{}
	}
	info := taskInfo{arn: answer.TaskARN}
	for _, c := range answer.Containers {
		for _, n := range c.Networks {
			for _, ip := range n.IPv4Addresses {
				if info.ip == "" && net.ParseIP(ip) != nil {
					info.ip = ip
				}
			}
		}
	}
	return info
}

// outboundIP is the address that this host would reach the service from. Nothing is sent.
func outboundIP(origin string) string {
	raw, err := registerURL(origin)
	if err != nil {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), "9"))
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	ip, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	return ip
}

// excerpt makes a foreign answer fit into one line of an error.
func excerpt(b []byte) string {
	s := strings.Join(strings.Fields(string(b)), " ")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

func randomID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
