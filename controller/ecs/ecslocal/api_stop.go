package ecslocal

import (
	"cmp"
	"time"
)

type stopTaskRequest struct {
	Cluster string `json:"cluster"`
	Task    string `json:"task"`
	Reason  string `json:"reason"`
}

// stopTask orders a task to stop. One that stops or has stopped already is left as it is.
func (s *Server) stopTask(in stopTaskRequest, c Conditions) (any, error) {
	if _, err := checkTaskRef(in.Task); err != nil {
		return nil, err
	}
	if err := s.lockFor(in.Cluster); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	t := s.find(in.Task)
	if t == nil || c.unseen(t, time.Now()) {
		return nil, invalid("The referenced task was not found.")
	}
	t.requestStop(stopUser, cmp.Or(in.Reason, "Task stopped by user"))
	t.tags = nil
	return struct {
		Task taskShape `json:"task"`
	}{t.shape(s, false)}, nil
}
