package redisstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

//go:embed lua/*.lua
var sources embed.FS

// errElsewhere: a session is in another container than the caller's guess.
var errElsewhere = errors.New("in another container")

// errChanged: a value is not what the caller has read any more.
var errChanged = errors.New("changed in between")

// alone tells whether a script does without the prelude.
func alone(name string) bool {
	switch name {
	case "lease_acquire", "lease_release", "index", "document_swap", "restore_begin", "restore_end":
		return true
	}
	return false
}

// loadScripts reads every script, with the prelude before those that want it.
func loadScripts() (map[string]*redis.Script, error) {
	prelude, err := sources.ReadFile("lua/prelude.lua")
	if err != nil {
		return nil, fmt.Errorf("reading the scripts: %w", err)
	}
	files, err := sources.ReadDir("lua")
	if err != nil {
		return nil, fmt.Errorf("reading the scripts: %w", err)
	}
	scripts := map[string]*redis.Script{}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".lua")
		text, err := sources.ReadFile(path.Join("lua", f.Name()))
		switch {
		case err != nil:
			return nil, fmt.Errorf("reading the scripts: %w", err)
		case name == "prelude":
		case alone(name):
			scripts[name] = redis.NewScript(string(text))
		default:
			scripts[name] = redis.NewScript(string(prelude) + string(text))
		}
	}
	return scripts, nil
}

// call is one run of a script that starts with the prelude.
type call struct {
	script    string
	by        state.Authority
	container string   // may be empty
	session   string   // may be empty
	keys      []string // beyond the nine; launches replace the last three
	args      []any    // from ARGV 7 on
}

// keysOf gives KEYS as the prelude names them.
func (s *Store) keysOf(c call) []string {
	k := &s.keys
	named := []string{k.seq, k.epoch, k.wake, k.sessions, k.containers, k.leaving}
	if strings.HasPrefix(c.script, "launch_") {
		return append(named, c.keys...)
	}
	named = append(named, k.container(c.container), k.slots(c.container), k.session(c.session))
	return append(named, c.keys...)
}

// run runs a script and gives what follows its revision in the answer.
func (s *Store) run(ctx context.Context, c call) ([]any, error) {
	by := c.by
	args := append([]any{s.seen.Load(), by.Epoch, by.Container, by.OwnerSeq, c.container, c.session}, c.args...)
	reply, err := s.eval(ctx, c.script, s.keysOf(c), args...)
	if err != nil {
		return reply, err
	}
	if len(reply) == 0 {
		return nil, fmt.Errorf("script %s answered without a revision", c.script)
	}
	s.see(integer(reply[0]))
	return reply[1:], nil
}

// eval runs a script and turns a refusal into its error. It gives what follows OK.
func (s *Store) eval(ctx context.Context, script string, keys []string, args ...any) ([]any, error) {
	began := time.Now()
	reply, err := s.send(ctx, script, keys, args)
	if err != nil {
		s.metrics.count(script, "error", began)
		return nil, answer(err)
	}
	code := "BROKEN"
	if len(reply) > 0 {
		code = str(reply[0])
	}
	if code == "OK" {
		s.metrics.count(script, "ok", began)
		return reply[1:], nil
	}
	refusal, ok := refusalOf(code)
	if !ok {
		s.metrics.count(script, "error", began)
		return nil, fmt.Errorf("script %s answered %q", script, code)
	}
	s.metrics.count(script, strings.ToLower(code), began)
	if len(reply) < 2 || str(reply[1]) == "" {
		return nil, refusal
	}
	if errors.Is(refusal, errElsewhere) {
		return reply[1:], refusal
	}
	return nil, fmt.Errorf("%w: %s", refusal, str(reply[1]))
}

// send runs a script together with those that others run now. A lease is not to wait for them.
func (s *Store) send(ctx context.Context, script string, keys []string, args []any) ([]any, error) {
	if strings.HasPrefix(script, "lease_") {
		return s.scripts[script].Run(ctx, s.client, keys, args...).Slice()
	}
	cmd, err := s.calls.script(ctx, s.scripts[script], keys, args)
	if err != nil {
		return nil, err
	}
	return cmd.Slice()
}

// refusalOf gives the error that a script's word stands for.
func refusalOf(code string) (error, bool) {
	switch code {
	case "NOTFOUND":
		return state.ErrNotFound, true
	case "EXISTS":
		return state.ErrExists, true
	case "CONFLICT":
		return state.ErrConflict, true
	case "FULL":
		return state.ErrFull, true
	case "FENCED":
		return state.ErrFenced, true
	case "ROLLEDBACK":
		return state.ErrRolledBack, true
	case "DIALECT":
		return state.ErrDialect, true
	case "INVALID":
		return state.ErrInvalid, true
	case "ELSEWHERE":
		return errElsewhere, true
	case "CHANGED":
		return errChanged, true
	}
	return nil, false
}

func str(v any) string {
	text, _ := v.(string)
	return text
}

func integer(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	case string:
		if i, err := strconv.ParseInt(n, 10, 64); err == nil {
			return i
		}
		f, _ := strconv.ParseFloat(n, 64)
		return int64(f)
	}
	return 0
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
