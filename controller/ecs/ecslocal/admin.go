package ecslocal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// adminPath begins the paths by which a person changes the weather:
//
//	GET  /_faults        the conditions in force, and how many calls have arrived
//	PUT  /_faults        a Conditions, in place of those in force and of the rest of a script
//	POST /_faults/calls  {"op":"RunTask","n":2,"fault":{…}}: what the next n calls meet
//	POST /_faults/stop   {"task":ARN,"code":"SpotInterruption","reason":…}: ECS stops a task
const adminPath = "/_faults"

func (s *Server) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+adminPath, s.tellConditions)
	mux.HandleFunc("PUT "+adminPath, func(w http.ResponseWriter, r *http.Request) {
		var c Conditions
		if err := readStrictly(r.Body, &c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := s.SetConditions(c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.tellConditions(w, r)
	})
	mux.HandleFunc("POST "+adminPath+"/calls", func(w http.ResponseWriter, r *http.Request) {
		in := struct {
			Op    string `json:"op"`
			N     int    `json:"n"`
			Fault Fault  `json:"fault"`
		}{N: 1}
		err := readStrictly(r.Body, &in)
		if err == nil && (!slices.Contains(operations(), in.Op) || in.N < 1 || in.N > 10_000) {
			err = fmt.Errorf("want an op of %v and an n of 1 to 10000", operations())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.Fail(in.Op, in.N, in.Fault)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST "+adminPath+"/stop", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Task   string `json:"task"`
			Code   string `json:"code"`
			Reason string `json:"reason"`
		}
		if err := readStrictly(r.Body, &in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if !s.Stop(in.Task, in.Code, in.Reason) {
			http.Error(w, "there is no such task to stop", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || !loopbackHost(r.Host) {
			http.Error(w, "faults are ordered by programs on this machine, not by web pages", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) tellConditions(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(struct {
		Conditions Conditions     `json:"conditions"`
		Calls      map[string]int `json:"calls"`
	}{s.Conditions(), s.faults.counts()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a caller that is gone learns nothing more
}

func readStrictly(body io.Reader, into any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}
