package redisstore

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// fields is a hash as Redis gives it: names and values by turns.
type fields []any

// each calls do with every name and value.
func (f fields) each(do func(name, value string)) {
	for i := 0; i+1 < len(f); i += 2 {
		do(str(f[i]), str(f[i+1]))
	}
}

// flat makes fields of what HGETALL gave outside of a script.
func flat(hash map[string]string) fields {
	f := make(fields, 0, 2*len(hash))
	for name, value := range hash {
		f = append(f, name, value)
	}
	return f
}

// decodeSession reads a session's hash; nil if there is none.
func decodeSession(id string, f fields) *state.Session {
	s := &state.Session{ID: id}
	f.each(func(name, value string) {
		switch name {
		case "spec":
			s.Spec = json.RawMessage(value)
		case "origin":
			s.Origin = state.Origin(value)
		case "userId":
			s.UserID = value
		case "phase":
			s.Phase = state.Phase(value)
		case "reason":
			s.Reason = state.Reason(value)
		case "message":
			s.Message = value
		case "container":
			s.Container = value
		case "bootId":
			s.BootID = value
		case "bindRev":
			s.BindRev = number(value)
		case "attempts":
			s.Attempts = int(number(value))
		case "excluded":
			s.Excluded = strings.Fields(value)
		case "refused":
			s.Refused = value
		case "cold":
			s.Cold = value == "1"
		case "keepAlive":
			s.KeepAlive = value == "1"
		case "attached":
			s.Attached = int(number(value))
		case "firstConnectAt":
			s.FirstConnectAt = moment(value)
		case "lastActivity":
			s.LastActivity = moment(value)
		case "graceUntil":
			s.GraceUntil = moment(value)
		case "waited":
			s.Waited = time.Duration(number(value)) * time.Millisecond
		case "deadline":
			s.Deadline = moment(value)
		case "seenAt":
			s.SeenAt = moment(value)
		case "boundAt":
			s.BoundAt = moment(value)
		case "readyAt":
			s.ReadyAt = moment(value)
		case "endedAt":
			s.EndedAt = moment(value)
		case "rev":
			s.Rev = number(value)
		}
	})
	if s.Phase == "" {
		return nil
	}
	return s
}

// decodeContainer reads a container's hash and its slots; nil if there is none.
func decodeContainer(id string, f fields, slots []string) *state.Container {
	c := &state.Container{ID: id}
	f.each(func(name, value string) {
		switch name {
		case "launch":
			c.Launch = value
		case "taskArn":
			c.TaskARN = value
		case "addr":
			c.Addr = value
		case "protocol":
			c.Protocol = int(number(value))
		case "bootId":
			c.BootID = value
		case "former":
			c.Former = strings.Fields(value)
		case "maxSessions":
			c.MaxSessions = int(number(value))
		case "phase":
			c.Phase = state.ContainerPhase(value)
		case "tenant":
			c.Tenant = value
		case "served":
			c.Served = value
		case "hungAt":
			c.HungAt = moment(value)
		case "closing":
			c.Closing = value == "1"
		case "drainSeq":
			c.DrainSeq = number(value)
		case "drainAck":
			c.DrainAck = number(value)
		case "owner":
			c.Owner = value
		case "ownerSeq":
			c.OwnerSeq = number(value)
		case "ownerUntil":
			c.OwnerUntil = moment(value)
		case "letGo":
			c.LetGo = value == "1"
		case "claimed":
			lenient(value, &c.Claimed)
		case "registeredAt":
			c.RegisteredAt = moment(value)
		case "seenAt":
			c.SeenAt = moment(value)
		case "health":
			lenient(value, &c.Health)
		case "rev":
			c.Rev = number(value)
		}
	})
	if c.Phase == "" {
		return nil
	}
	slices.Sort(slots)
	if len(slots) > 0 {
		c.Slots = slots
	}
	return c
}

// launchText is a launch as stored. The script writes createdAt, which is why it comes first.
type launchText struct {
	CreatedAt int64           `json:"createdAt,omitempty"` // ms
	ID        string          `json:"id"`
	Input     json.RawMessage `json:"input"`
	Port      int             `json:"port"`
	TaskARN   string          `json:"taskArn,omitempty"`
	Outcome   state.Outcome   `json:"outcome,omitempty"`
	Message   string          `json:"message,omitempty"`
	Tries     int             `json:"tries,omitempty"`

	Target     string      `json:"target,omitempty"`
	Cause      state.Cause `json:"cause,omitempty"`
	AnsweredAt int64       `json:"answeredAt,omitempty"` // ms
	SettledAt  int64       `json:"settledAt,omitempty"`  // ms
}

// encodeLaunch writes a launch; a zero CreatedAt is left out.
func encodeLaunch(l *state.Launch) (string, error) {
	t := launchText{
		ID: l.ID, Input: l.Input, Port: l.Port, TaskARN: l.TaskARN, Outcome: l.Outcome, Message: l.Message, Tries: l.Tries,
		Target: l.Target, Cause: l.Cause,
		CreatedAt: millis(l.CreatedAt), AnsweredAt: millis(l.AnsweredAt), SettledAt: millis(l.SettledAt),
	}
	text, err := json.Marshal(t)
	return string(text), err
}

func decodeLaunch(text string, rev int64) (*state.Launch, error) {
	var t launchText
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return nil, err
	}
	return &state.Launch{
		ID: t.ID, Input: t.Input, Port: t.Port, CreatedAt: time.UnixMilli(t.CreatedAt).UTC(),
		TaskARN: t.TaskARN, Outcome: t.Outcome, Message: t.Message, Tries: t.Tries, Rev: rev,
		Target: t.Target, Cause: t.Cause, AnsweredAt: ofMillis(t.AnsweredAt), SettledAt: ofMillis(t.SettledAt),
	}, nil
}

// number reads a whole number; what is none counts as zero.
func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// moment reads a time in ms; empty is the zero time.
func moment(text string) time.Time { return ofMillis(number(text)) }

// ofMillis gives the time of ms, and the zero time of none.
func ofMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// millis is its inverse.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// lenient reads JSON that we wrote ourselves; what is none leaves the zero value.
func lenient(text string, into any) {
	if text != "" {
		_ = json.Unmarshal([]byte(text), into)
	}
}
