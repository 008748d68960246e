// Package v1container is a browser container of the original dialect, without a browser: what
// the contract says of it, with all its traps, and nothing that helps. Tests drive the service
// with it.
//
// It is written from the contract alone and shares no code with what it tests.
package v1container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Config is what Start makes a container of.
type Config struct {
	ID          string
	MaxSessions int           // zero: 20
	Timeout     time.Duration // without CLIENT_MESSAGE, until a session ends; zero: 5 min
	StartTime   time.Duration // of a session's browser; zero: none
	Listen      string        // zero: a free port of 127.0.0.1

	// Note and Erase write into the hash container:{id}:sessions; nil: nothing is written.
	Note  func(session, value string)
	Erase func(session string)

	// Answer makes the answer's result of a command; without one there is no answer. nil:
	// {"echo": the whole command}.
	Answer func(session string, command json.RawMessage) json.RawMessage
}

// Seen is a message that the container got on its link.
type Seen struct {
	Type      string          `json:"type"`
	SessionID string          `json:"sessionId"`
	UserID    string          `json:"userId"`
	Options   json.RawMessage `json:"options"`
	Data      json.RawMessage `json:"data"`

	Raw []byte `json:"-"`
}

// Container is a running container.
type Container struct {
	cfg      Config
	listener net.Listener
	server   *http.Server
	started  time.Time

	mu       sync.Mutex // guards the following
	voice    *websocket.Conn
	links    map[*websocket.Conn]struct{}
	mute     bool
	opened   int // links, ever
	most     int // links at one time, at most
	pages    int // sessions created, ever
	sessions map[string]*session
	seen     []Seen
	frozen   chan struct{} // closed when it goes on; nil: not frozen
	ended    bool
	over     chan struct{} // closed when it has ended
	work     sync.WaitGroup
}

type session struct {
	page       int // tells one creation of the session from another
	ready      bool
	screencast bool
	timer      *time.Timer
}

// Start starts a container. It does not register.
func Start(cfg Config) (*Container, error) {
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 20
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Minute
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for container %s: %w", cfg.ID, err)
	}
	c := &Container{
		cfg: cfg, listener: listener, started: time.Now(),
		links: map[*websocket.Conn]struct{}{}, sessions: map[string]*session{}, over: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", c.health)
	mux.HandleFunc("GET /internal/ws", c.link)
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = c.server.Serve(listener) }()
	return c, nil
}

// Port is where the container listens.
func (c *Container) Port() int {
	addr, _ := c.listener.Addr().(*net.TCPAddr)
	return addr.Port
}

// Register registers the container as the original does: once, without a version.
func (c *Container) Register(ctx context.Context, endpoint, token, ip string) error {
	body, err := json.Marshal(map[string]any{"containerId": c.cfg.ID, "ip": ip, "port": c.Port(), "taskArn": "local"})
	if err != nil {
		return fmt.Errorf("encoding the registration: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/internal/register", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("registering at %s: %w", endpoint, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Container-Token", token)
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return fmt.Errorf("registering at %s: %w", endpoint, err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	var told struct{ Status string }
	if json.Unmarshal(answer, &told) != nil || resp.StatusCode != http.StatusOK || told.Status != "registered" {
		return fmt.Errorf("registering at %s: status %d: %s", endpoint, resp.StatusCode, answer)
	}
	return nil
}

// Kill ends the container at once: its sockets are reset, and its notes stay behind.
func (c *Container) Kill() {
	c.mu.Lock()
	if !c.ended {
		close(c.over)
	}
	c.ended = true
	links := make([]*websocket.Conn, 0, len(c.links))
	for conn := range c.links {
		links = append(links, conn)
	}
	for _, s := range c.sessions {
		s.timer.Stop()
	}
	c.thawLocked()
	c.mu.Unlock()
	for _, conn := range links {
		if tcp, ok := conn.NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	_ = c.server.Close()
	c.work.Wait()
}

// Ended is closed when the container was killed.
func (c *Container) Ended() <-chan struct{} { return c.over }

// Freeze makes the container hang, as a partition or a stopped process does, until Thaw. What
// is sent to it waits.
func (c *Container) Freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen == nil {
		c.frozen = make(chan struct{})
	}
}

// Thaw lets it go on.
func (c *Container) Thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.thawLocked()
}

func (c *Container) thawLocked() {
	if c.frozen != nil {
		close(c.frozen)
		c.frozen = nil
	}
}

// hang waits while the container is frozen.
func (c *Container) hang() {
	c.mu.Lock()
	frozen := c.frozen
	c.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

// Silence takes the container's voice away, as a second link that closes does.
func (c *Container) Silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute = true
}

// Opened is the number of links that were opened, ever, and at one time at most.
func (c *Container) Opened() (ever, atOnce int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened, c.most
}

// Holds tells whether the container holds a session.
func (c *Container) Holds(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.sessions[id]
	return ok
}

// Page tells one creation of a session from another: a client that finds another number than
// before has lost its page. Zero: there is no such session.
func (c *Container) Page(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		return s.page
	}
	return 0
}

// Seen lists the messages of a type that the container got; empty: all.
func (c *Container) Seen(kind string) []Seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Seen
	for _, m := range c.seen {
		if kind == "" || m.Type == kind {
			list = append(list, m)
		}
	}
	return list
}

// Crash loses a session without a word.
func (c *Container) Crash(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		s.timer.Stop()
		delete(c.sessions, id)
	}
}

func (c *Container) health(w http.ResponseWriter, _ *http.Request) {
	c.hang()
	c.mu.Lock()
	n := len(c.sessions)
	c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"status": "healthy", "sessions": n, "maxSessions": c.cfg.MaxSessions, "containerId": c.cfg.ID,
	})
}

// link serves one control socket. The newest takes all replies, and when any closes, nobody
// gets one any more.
func (c *Container) link(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	ping := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		c.hang()
		return ping(data)
	})
	c.mu.Lock()
	c.voice, c.mute = conn, false
	c.links[conn] = struct{}{}
	c.opened++
	c.most = max(c.most, len(c.links))
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.links, conn)
		c.mute = true
		c.mu.Unlock()
		_ = conn.Close()
	}()
	conn.SetReadLimit(100 << 20)
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		c.hang()
		c.handle(text)
	}
}

// Say sends a message as it is, if the container has a voice.
func (c *Container) Say(text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sayLocked(text)
}

func (c *Container) sayLocked(text []byte) {
	if c.mute || c.voice == nil || c.ended {
		return
	}
	_ = c.voice.WriteMessage(websocket.TextMessage, text)
}

func (c *Container) say(fields map[string]any) {
	text, err := encode(fields)
	if err == nil {
		c.Say(text)
	}
}

// encode writes JSON as the original does: no character is escaped that need not be.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

func (c *Container) handle(text []byte) {
	var m Seen
	if json.Unmarshal(text, &m) != nil {
		return
	}
	m.Raw = text
	c.mu.Lock()
	c.seen = append(c.seen, m)
	c.mu.Unlock()
	switch m.Type {
	case "CREATE_SESSION":
		c.background(func() { c.create(m) }) // DESTROY and CREATE run at the same time
	case "DESTROY_SESSION":
		c.background(func() { c.destroy(m.SessionID) })
	case "CLIENT_MESSAGE":
		c.command(m)
	case "START_SCREENCAST", "STOP_SCREENCAST", "SEND_INPUT":
		c.screencast(m)
	}
}

func (c *Container) background(f func()) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.work.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.work.Done()
		f()
	}()
}

func (c *Container) create(m Seen) {
	c.mu.Lock()
	if len(c.sessions) >= c.cfg.MaxSessions {
		c.mu.Unlock()
		c.say(map[string]any{"type": "SESSION_ERROR", "sessionId": m.SessionID, "error": "Container at capacity"})
		return
	}
	s := &session{}
	s.timer = time.AfterFunc(c.cfg.Timeout, func() { c.timeout(m.SessionID) })
	if old := c.sessions[m.SessionID]; old != nil {
		old.timer.Stop() // its page is gone
	}
	c.pages++
	s.page = c.pages
	c.sessions[m.SessionID] = s
	c.mu.Unlock()
	if c.cfg.StartTime > 0 {
		started := time.NewTimer(c.cfg.StartTime)
		defer started.Stop()
		<-started.C
	}
	c.mu.Lock()
	s.ready = true
	c.mu.Unlock()
	if c.cfg.Note != nil {
		c.cfg.Note(m.SessionID, fmt.Sprintf(`{"userId":%q,"createdAt":%d}`, m.UserID, time.Now().UnixMilli()))
	}
	c.say(map[string]any{"type": "SESSION_READY", "sessionId": m.SessionID})
}

func (c *Container) destroy(id string) {
	c.mu.Lock()
	if s := c.sessions[id]; s != nil {
		s.timer.Stop()
	}
	delete(c.sessions, id)
	c.mu.Unlock()
	if c.cfg.Erase != nil {
		c.cfg.Erase(id)
	}
}

func (c *Container) timeout(id string) {
	if !c.Holds(id) {
		return
	}
	c.destroy(id)
	c.say(map[string]any{"type": "SESSION_TIMEOUT", "sessionId": id})
}

// command answers a client's command.
func (c *Container) command(m Seen) {
	var command struct {
		ID     json.RawMessage `json:"id"`
		Target string          `json:"targetId"`
	}
	_ = json.Unmarshal(m.Data, &command) // what is no object has no id
	data := map[string]any{}
	if command.ID != nil {
		data["id"] = command.ID
	}
	c.mu.Lock()
	s := c.sessions[m.SessionID]
	if s != nil {
		s.timer.Reset(c.cfg.Timeout)
	}
	c.mu.Unlock()
	var fault error
	switch {
	case s == nil:
		fault = errors.New("Session not found") //nolint:staticcheck // the original's word
	case command.Target != "" && command.Target != "t1":
		fault = fmt.Errorf("Target %s not found", command.Target) //nolint:staticcheck // the original's word
	}
	switch {
	case fault != nil:
		data["error"] = map[string]string{"message": fault.Error()}
	case c.cfg.Answer != nil:
		result := c.cfg.Answer(m.SessionID, m.Data)
		if result == nil {
			return
		}
		data["result"] = result
	default:
		data["result"] = map[string]json.RawMessage{"echo": m.Data}
	}
	c.answer(m.SessionID, data)
}

// answer writes the fields in the original's order.
func (c *Container) answer(id string, data map[string]any) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"type":"CDP_RESPONSE","sessionId":%q,"data":{`, id)
	comma := ""
	for _, field := range []string{"id", "result", "error"} {
		value, ok := data[field]
		if !ok {
			continue
		}
		text, err := encode(value)
		if err != nil {
			return
		}
		fmt.Fprintf(&b, `%s%q:`, comma, field)
		b.Write(text)
		comma = ","
	}
	b.WriteString("}}")
	c.Say(b.Bytes())
}

func (c *Container) screencast(m Seen) {
	c.mu.Lock()
	s := c.sessions[m.SessionID]
	was := s != nil && s.screencast
	if s != nil && m.Type != "SEND_INPUT" {
		s.screencast = m.Type == "START_SCREENCAST"
	}
	c.mu.Unlock()
	switch {
	case s == nil:
		c.say(map[string]any{"type": "SCREENCAST_ERROR", "sessionId": m.SessionID, "error": "Session not found"})
	case m.Type == "START_SCREENCAST" && was:
		c.say(map[string]any{"type": "SCREENCAST_ERROR", "sessionId": m.SessionID,
			"error": "Screencast already active for session " + m.SessionID})
	case m.Type == "START_SCREENCAST":
		c.say(map[string]any{"type": "SCREENCAST_STARTED", "sessionId": m.SessionID, "options": map[string]any{"quality": 80}})
		c.Frame(m.SessionID, 1, "AAAA")
	case m.Type == "STOP_SCREENCAST" && was:
		c.say(map[string]any{"type": "SCREENCAST_STOPPED", "sessionId": m.SessionID, "stats": map[string]any{"framesSent": 1}})
	}
}

// Frame sends a frame of a screencast, its data before the session's id, as the original does.
func (c *Container) Frame(session string, n int, data string) {
	c.Say(fmt.Appendf(nil, `{"type":"SCREENCAST_FRAME","data":%q,"metadata":{"offsetTop":0},"sessionId":%q,"frameId":%d}`, data, session, n))
}
