package ecslocal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"
)

// targetPrefix begins the X-Amz-Target of every call.
const targetPrefix = "AmazonEC2ContainerServiceV20141113."

// contentType is that of AWS JSON 1.1.
const contentType = "application/x-amz-json-1.1"

// maxBody bounds a request; the largest honest one is a RunTask with full overrides and tags.
const maxBody = 256 << 10

// An exception is an error of the ECS API.
type exception struct {
	Type        string   `json:"__type"`
	Message     string   `json:"message"`
	ResourceIDs []string `json:"resourceIds,omitempty"` // with ConflictException

	status int // default 400
}

func (e *exception) Error() string { return e.Type + ": " + e.Message }

func invalid(format string, args ...any) error {
	return &exception{Type: "InvalidParameterException", Message: fmt.Sprintf(format, args...)}
}

func clientError(format string, args ...any) error {
	return &exception{Type: "ClientException", Message: fmt.Sprintf(format, args...)}
}

// decode reads a call's body. A member that this endpoint does not know is refused, so that a
// call which asks for more than is done here is noticed.
func decode(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return &exception{Type: "SerializationException", Message: err.Error()}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &exception{Type: "SerializationException", Message: "something follows the request"}
	}
	return nil
}

// answer writes a call's result or its error.
func answer(w http.ResponseWriter, result any, err error) {
	status := http.StatusOK
	if err != nil {
		var e *exception
		if !errors.As(err, &e) {
			e = &exception{Type: "ServerException", Message: err.Error(), status: http.StatusInternalServerError}
		}
		status, result = e.status, e
		if status == 0 {
			status = http.StatusBadRequest
		}
	}
	body, err := json.Marshal(result)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"__type":"ServerException"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that is gone learns nothing more
}

// operation takes the name of the operation out of a call's headers, after checking that the
// call is one. Signatures must be there, and are not verified: the endpoint listens on loopback
// only, and its caller may have made its credentials up.
func operation(r *http.Request) (string, error) {
	refuse := func(status int, kind, message string) (string, error) {
		return "", &exception{Type: kind, Message: message, status: status}
	}
	// No page in a browser of this machine has business here, be it by way of a name that it
	// had resolved to loopback.
	if r.Header.Get("Origin") != "" || !loopbackHost(r.Host) {
		return refuse(http.StatusForbidden, "AccessDeniedException", "calls come from programs on this machine, to a loopback address")
	}
	if r.Method != http.MethodPost || r.URL.Path != "/" {
		return refuse(http.StatusNotFound, "UnknownOperationException", "want POST /")
	}
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != contentType {
		return refuse(http.StatusBadRequest, "SerializationException", "want Content-Type "+contentType)
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		return refuse(http.StatusBadRequest, "MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
	if !ok {
		return refuse(http.StatusBadRequest, "UnknownOperationException", "want X-Amz-Target "+targetPrefix+"…")
	}
	return op, nil
}

// The shapes of the API, as far as they are spoken here.
type (
	keyValue struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	tag struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	containerOverride struct {
		Name        string     `json:"name"`
		Environment []keyValue `json:"environment,omitempty"`
	}
	taskOverride struct {
		ContainerOverrides []containerOverride `json:"containerOverrides,omitempty"`
	}
	failure struct {
		ARN    string `json:"arn,omitempty"`
		Reason string `json:"reason,omitempty"`
		Detail string `json:"detail,omitempty"`
	}
	taskShape struct {
		TaskARN              string            `json:"taskArn"`
		ClusterARN           string            `json:"clusterArn"`
		TaskDefinitionARN    string            `json:"taskDefinitionArn"`
		AvailabilityZone     string            `json:"availabilityZone"`
		Attachments          []attachmentShape `json:"attachments"`
		Containers           []containerShape  `json:"containers"`
		Overrides            taskOverride      `json:"overrides"`
		Tags                 []tag             `json:"tags,omitempty"`
		LastStatus           string            `json:"lastStatus"`
		DesiredStatus        string            `json:"desiredStatus"`
		HealthStatus         string            `json:"healthStatus"`
		Connectivity         string            `json:"connectivity,omitempty"`
		Group                string            `json:"group"`
		StartedBy            string            `json:"startedBy,omitempty"`
		LaunchType           string            `json:"launchType,omitempty"`
		CapacityProviderName string            `json:"capacityProviderName,omitempty"`
		PlatformVersion      string            `json:"platformVersion,omitempty"`
		StopCode             string            `json:"stopCode,omitempty"`
		StoppedReason        string            `json:"stoppedReason,omitempty"`
		Version              int64             `json:"version"`

		CreatedAt          timestamp `json:"createdAt,omitzero"`
		ConnectivityAt     timestamp `json:"connectivityAt,omitzero"`
		PullStartedAt      timestamp `json:"pullStartedAt,omitzero"`
		PullStoppedAt      timestamp `json:"pullStoppedAt,omitzero"`
		StartedAt          timestamp `json:"startedAt,omitzero"`
		StoppingAt         timestamp `json:"stoppingAt,omitzero"`
		ExecutionStoppedAt timestamp `json:"executionStoppedAt,omitzero"`
		StoppedAt          timestamp `json:"stoppedAt,omitzero"`
	}
	attachmentShape struct {
		ID      string     `json:"id"`
		Type    string     `json:"type"`
		Status  string     `json:"status"`
		Details []keyValue `json:"details"`
	}
	containerShape struct {
		ContainerARN      string           `json:"containerArn"`
		TaskARN           string           `json:"taskArn"`
		Name              string           `json:"name"`
		LastStatus        string           `json:"lastStatus"`
		ExitCode          *int             `json:"exitCode,omitempty"`
		Reason            string           `json:"reason,omitempty"`
		NetworkInterfaces []interfaceShape `json:"networkInterfaces"`
	}
	interfaceShape struct {
		AttachmentID       string `json:"attachmentId"`
		PrivateIPv4Address string `json:"privateIpv4Address"`
	}
)

// timestamp is written as AWS JSON does: seconds since 1970, with milliseconds.
type timestamp struct{ time.Time }

// MarshalJSON gives the seconds.
func (t timestamp) MarshalJSON() ([]byte, error) {
	return json.Marshal(math.Round(float64(t.UnixMilli())) / 1000)
}
