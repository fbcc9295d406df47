package restconf

import (
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// yangData is the media type of everything but the host-meta documents (RFC
// 8040, section 11.3.2).
const yangData = "application/yang-data+json"

// maxBody is the largest body of a request, in bytes.
const maxBody = 64 << 10

// maxDrain is how much of a larger body is read and dropped, in bytes.
const maxDrain = 1 << 20

// body returns the body of a request in JSON.
func body(r *http.Request) ([]byte, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != yangData || len(params) > 0 || len(r.Header.Values("Content-Type")) != 1 {
		return nil, problem{http.StatusUnsupportedMediaType, protocol, "operation-not-supported", "Content-Type must be " + yangData}
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, problem{http.StatusUnsupportedMediaType, protocol, "operation-not-supported", "Content-Encoding is not supported"}
	}
	tooBig := problem{http.StatusRequestEntityTooLarge, protocol, "too-big", "body is above 64 KiB"}
	if r.ContentLength > maxBody && r.Header.Get("Expect") != "" {
		return nil, tooBig // the client waits for this before it sends the body
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if len(b) > maxBody {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain) // a client that still sends does not hear the answer
		return nil, tooBig
	}
	if err != nil {
		return nil, malformed("body did not come in full")
	}
	return b, nil
}

// accepts tells whether the client takes an answer of the media type. A client
// that says nothing takes everything (RFC 9110, section 12.5.1).
func accepts(r *http.Request, media string) error {
	ranges := r.Header.Values("Accept")
	if len(ranges) == 0 {
		return nil
	}
	for _, one := range strings.Split(strings.Join(ranges, ","), ",") {
		name, params, err := mime.ParseMediaType(one)
		if err != nil || params["q"] == "0" {
			continue
		}
		if name == media || name == "application/*" || name == "*/*" {
			return nil
		}
	}
	return problem{http.StatusNotAcceptable, protocol, "invalid-value", "Accept does not allow " + media}
}

// write sends a document that was made for the request.
func (h *Handler) write(w http.ResponseWriter, media string, doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", media)
	h.alive(w)
	_, _ = w.Write(append(b, '\n')) // a client that has gone needs no answer
	return nil
}

// alive gives the client time to take what is written next.
func (h *Handler) alive(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.config.Stall)) // a recorder in a test has none
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if problemOf(err).message == hidden {
		h.config.Log.Error("RESTCONF request", "path", r.URL.EscapedPath(), "cause", err)
	}
	h.alive(w)
	Refuse(w, err)
}
