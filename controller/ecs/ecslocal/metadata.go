package ecslocal

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

const (
	// metadataVariable names where a task learns about itself.
	metadataVariable = "ECS_CONTAINER_METADATA_URI_V4"
	metadataPath     = "/v4/"
)

// The shapes of the task metadata endpoint, version 4.
type (
	taskMetadata struct {
		Cluster          string
		TaskARN          string
		Family           string
		Revision         string
		DesiredStatus    string
		KnownStatus      string
		PullStartedAt    time.Time `json:",omitzero"`
		PullStoppedAt    time.Time `json:",omitzero"`
		AvailabilityZone string
		LaunchType       string `json:",omitempty"`
		Containers       []containerMetadata
	}
	containerMetadata struct {
		DockerID      string `json:"DockerId"`
		Name          string
		DockerName    string
		Labels        map[string]string
		DesiredStatus string
		KnownStatus   string
		CreatedAt     time.Time `json:",omitzero"`
		StartedAt     time.Time `json:",omitzero"`
		Type          string
		ContainerARN  string
		Networks      []networkMetadata
	}
	networkMetadata struct {
		NetworkMode     string
		IPv4Addresses   []string
		AttachmentIndex int
	}
)

// metadata serves what ECS_CONTAINER_METADATA_URI_V4 points to.
func (s *Server) metadata() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+metadataPath+"{id}", func(w http.ResponseWriter, r *http.Request) {
		s.tellMetadata(w, r, func(t taskMetadata) any { return t.Containers[0] })
	})
	mux.HandleFunc("GET "+metadataPath+"{id}/task", func(w http.ResponseWriter, r *http.Request) {
		s.tellMetadata(w, r, func(t taskMetadata) any { return t })
	})
	return mux
}

func (s *Server) tellMetadata(w http.ResponseWriter, r *http.Request, part func(taskMetadata) any) {
	if r.Header.Get("Origin") != "" || !loopbackHost(r.Host) {
		http.Error(w, "task metadata is for tasks", http.StatusForbidden)
		return
	}
	t, ok := s.metadataOf(r.PathValue("id"))
	if !ok {
		http.Error(w, "V4 task metadata handler: unable to get the task from the id in the request", http.StatusNotFound)
		return
	}
	body, err := json.Marshal(part(t))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a caller that is gone learns nothing more
}

// metadataOf gives the metadata of the task that was given that id for it.
func (s *Server) metadataOf(id string) (taskMetadata, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id[:min(len(id), 32)]]
	if t == nil || t.metadataID != id || t.status == stopped {
		return taskMetadata{}, false
	}
	container := containerMetadata{
		DockerID:   t.metadataID,
		Name:       t.def.Container,
		DockerName: t.def.Container,
		Labels: map[string]string{
			"com.amazonaws.ecs.cluster":                 s.Cluster(),
			"com.amazonaws.ecs.container-name":          t.def.Container,
			"com.amazonaws.ecs.task-arn":                t.arn,
			"com.amazonaws.ecs.task-definition-family":  t.family,
			"com.amazonaws.ecs.task-definition-version": strconv.Itoa(t.def.Revision),
		},
		DesiredStatus: t.desired,
		KnownStatus:   t.containerStatus(),
		CreatedAt:     t.at.created,
		StartedAt:     t.at.started,
		Type:          "NORMAL",
		ContainerARN:  s.arn("container/" + s.cfg.Cluster + "/" + t.id + "/" + t.id),
		Networks:      []networkMetadata{{NetworkMode: "awsvpc", IPv4Addresses: []string{}}},
	}
	if t.addr != "" {
		container.Networks[0].IPv4Addresses = []string{t.addr}
	}
	return taskMetadata{
		Cluster:          s.Cluster(),
		TaskARN:          t.arn,
		Family:           t.family,
		Revision:         strconv.Itoa(t.def.Revision),
		DesiredStatus:    t.desired,
		KnownStatus:      t.status,
		PullStartedAt:    t.at.pullStarted,
		PullStoppedAt:    t.at.pullStopped,
		AvailabilityZone: s.cfg.Region + zoneSuffix,
		LaunchType:       t.launchType,
		Containers:       []containerMetadata{container},
	}, true
}
