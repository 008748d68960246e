package state_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/state"
)

func TestOverrides(t *testing.T) {
	configured := state.Pool{Min: 2, Max: 10, WarmSlots: 1, MaxSessions: 4, Spread: true}
	with := func(change func(*state.Pool)) state.Pool { p := configured; change(&p); return p }
	for name, tc := range map[string]struct {
		text string
		want state.Pool
		bad  string // part of the refusal
	}{
		"nothing is overridden":                 {`{}`, configured, ""},
		"null is absent":                        {`{"min":null,"paused":null}`, configured, ""},
		"each alone":                            {`{"warm":5}`, with(func(p *state.Pool) { p.WarmSlots = 5 }), ""},
		"all together":                          {` {"min":3,"max":4,"warm":0,"paused":true}`, state.Pool{Min: 3, Max: 4, Paused: true, MaxSessions: 4, Spread: true}, ""},
		"a larger maximum":                      {`{"max":50,"min":40}`, with(func(p *state.Pool) { p.Min, p.Max = 40, 50 }), ""},
		"a maximum below the configured min":    {`{"max":0}`, with(func(p *state.Pool) { p.Min, p.Max = 0, 0 }), ""},
		"unknown fields are passed over":        {`{"max":3,"by":"ops"}`, with(func(p *state.Pool) { p.Max = 3 }), ""},
		"a whole number in another spelling":    {`{"max":3.0e0}`, with(func(p *state.Pool) { p.Max = 3 }), ""},
		"not JSON":                              {`max=3`, state.Pool{}, "not a JSON object"},
		"cut short":                             {`{"max":3`, state.Pool{}, "not JSON"},
		"empty":                                 {``, state.Pool{}, "not a JSON object"},
		"a list":                                {`[1]`, state.Pool{}, "not a JSON object"},
		"null":                                  {`null`, state.Pool{}, "not a JSON object"},
		"negative":                              {`{"min":-1}`, state.Pool{}, "min must be"},
		"a fraction":                            {`{"warm":1.5}`, state.Pool{}, "warm must be"},
		"a text":                                {`{"max":"3"}`, state.Pool{}, "max must be"},
		"too large":                             {`{"max":1e300}`, state.Pool{}, "max must be"},
		"paused as a number":                    {`{"paused":1}`, state.Pool{}, "paused must be"},
		"one bad value refuses the good ones":   {`{"max":5,"paused":"yes"}`, state.Pool{}, "paused must be"},
		"min above max":                         {`{"min":4,"max":3}`, state.Pool{}, "min is 4"},
		"min above the configured maximum":      {`{"min":11}`, state.Pool{}, "min is 11"},
		"everything that is wrong is told once": {`{"min":-1,"max":-2}`, state.Pool{}, "; max must be"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := state.ParseOverrides([]byte(tc.text))
			got := state.Pool{}
			if err == nil {
				got, err = o.Over(configured)
			}
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("got %+v, %v, want an error with %q", got, err, tc.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseOverrides(f *testing.F) {
	f.Add(`{"min":1,"max":2,"warm":3,"paused":true}`)
	f.Add(`{"min":9007199254740993}`)
	f.Fuzz(func(t *testing.T, text string) {
		o, err := state.ParseOverrides([]byte(text))
		if err != nil {
			return
		}
		p, err := o.Over(state.Pool{Min: 1, Max: 5, MaxSessions: 1})
		if err == nil && (p.Min < 0 || p.Min > p.Max || p.WarmSlots < 0) {
			t.Errorf("%q makes %+v", text, p)
		}
	})
}

func TestSetIn(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"into what is there":       {`{"a":{ "x" : [ 1e400 , "<" ] },"b":1}`, `{"a":{ "x" : [ 1e400 , "<" ],"f":"v"},"b":1}`},
		"over what is there":       {`{"a":{"f":1,"g":2}}`, `{"a":{"f":"v","g":2}}`},
		"where there is none":      {`{"b":1}`, `{"b":1,"a":{"f":"v"}}`},
		"where there is no object": {`{"a":"text"}`, `{"a":{"f":"v"}}`},
		"into nothing":             {`{}`, `{"a":{"f":"v"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := state.SetIn([]byte(tc.text), "a", "f", "v")
			if err != nil || string(got) != tc.want {
				t.Errorf("got %s, %v, want %s", got, err, tc.want)
			}
		})
	}
	if got, err := state.SetIn([]byte(`{"a":`), "a", "f", "v"); err == nil {
		t.Errorf("got %s", got)
	}
}
