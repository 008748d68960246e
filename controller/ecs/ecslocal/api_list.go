package ecslocal

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// maxPage is how many tasks one ListTasks gives.
const maxPage = 100

type listTasksRequest struct {
	Cluster       string `json:"cluster"`
	StartedBy     string `json:"startedBy"`
	Family        string `json:"family"`
	ServiceName   string `json:"serviceName"`
	LaunchType    string `json:"launchType"`
	DesiredStatus string `json:"desiredStatus"`
	MaxResults    *int   `json:"maxResults"`
	NextToken     string `json:"nextToken"`
}

type listTasksResponse struct {
	TaskARNs  []string `json:"taskArns"`
	NextToken string   `json:"nextToken,omitempty"`
}

// page is what a nextToken says.
type page struct {
	After uint64           `json:"after"` // the sequence of the last task given
	Query listTasksRequest `json:"query"` // the token is good for this query only
}

// listTasks gives the ARNs of tasks, oldest first.
func (s *Server) listTasks(in listTasksRequest, c Conditions) (any, error) {
	// ECS: "When you specify startedBy as the filter, it must be the only filter that you use."
	// What is desired (RUNNING unless said otherwise) is not counted as one.
	if in.StartedBy != "" && (in.Family != "" || in.ServiceName != "" || in.LaunchType != "") {
		return nil, invalid("startedBy must be the only filter")
	}
	limit := maxPage
	if in.MaxResults != nil {
		limit = *in.MaxResults
	}
	if limit < 1 || limit > maxPage {
		return nil, invalid("maxResults: want 1 to %d", maxPage)
	}
	desired := in.DesiredStatus
	switch desired {
	case "":
		desired = "RUNNING"
	case "RUNNING", "PENDING", stopped:
	default:
		return nil, invalid("desiredStatus %q is none", desired)
	}
	if in.ServiceName != "" {
		return nil, &exception{Type: "ServiceNotFoundException", Message: "Service not found."}
	}
	from := page{Query: in.query()}
	if in.NextToken != "" {
		text, err := base64.RawURLEncoding.DecodeString(in.NextToken)
		var given page
		if err != nil || json.Unmarshal(text, &given) != nil || given.Query != from.Query {
			return nil, invalid("Invalid token: it was not given for this query")
		}
		from = given
	}

	if err := s.lockFor(in.Cluster); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	s.pages++
	if in.NextToken != "" && c.draw("page", s.pages) < c.FailedPages {
		return nil, &exception{Type: "ServerException", Message: "Service Unavailable. Please try again later.", status: http.StatusInternalServerError}
	}
	out := listTasksResponse{TaskARNs: []string{}}
	for _, t := range s.order {
		// PENDING is a state that ECS never desires, so that filter finds nothing.
		if t.seq <= from.After || c.desired(t, now) != desired || c.unseen(t, now) ||
			(in.StartedBy != "" && t.startedBy != in.StartedBy) ||
			(in.Family != "" && t.family != strings.SplitN(in.Family, ":", 2)[0]) ||
			(in.LaunchType != "" && t.launchType != in.LaunchType) ||
			(t.status == stopped && s.find(t.id) == nil) {
			continue
		}
		if len(out.TaskARNs) == limit {
			text, err := json.Marshal(from)
			if err != nil {
				return nil, err
			}
			out.NextToken = base64.RawURLEncoding.EncodeToString(text)
			return out, nil
		}
		out.TaskARNs = append(out.TaskARNs, t.arn)
		from.After = t.seq
	}
	return out, nil
}

// query is the call without its paging.
func (in listTasksRequest) query() listTasksRequest {
	in.MaxResults, in.NextToken = nil, ""
	return in
}
