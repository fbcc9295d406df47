package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"waxseal/agent/restconf"
	"waxseal/measure/wire"
)

// newWeb returns the server of RESTCONF: the same identity, clients and limits
// as gRPC's, over HTTP/1.1 and HTTP/2.
func (a *Agent) newWeb(id *identity, guard *guard) *http.Server {
	l := a.config.Limits
	handler := restconf.New(restconf.Config{
		Desk: a.desk, IAK: a.config.IAKCert, OIAK: a.oiak,
		Admit:  func(r *http.Request) error { return guard.rates[wire.MethodAttest].check(addrOf(r)) },
		Uptime: a.config.Uptime, Now: a.config.Now, Stall: l.Call, Log: a.config.Log,
	})
	return &http.Server{
		Handler:           guard.web(handler),
		TLSConfig:         id.tlsConfig("h2", "http/1.1"),
		ReadHeaderTimeout: l.Handshake,
		ReadTimeout:       l.Call,
		WriteTimeout:      2 * l.Call, // the handler moves it on while a client takes what is sent
		IdleTimeout:       l.Idle,
		MaxHeaderBytes:    16 << 10,

		DisableGeneralOptionsHandler: true, // "OPTIONS *" is for the handler to refuse, too
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          int(l.Streams),
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerConnection: 128 << 10,
			MaxReceiveBufferPerStream:     64 << 10,
			SendPingTimeout:               l.Silence,
			PingTimeout:                   min(l.Silence, 20*time.Second),
			WriteByteTimeout:              l.Call,
		},
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, bornKey{}, time.Now())
		},
		ErrorLog: slog.NewLogLogger(a.config.Log.Handler(), slog.LevelDebug),
	}
}

// bornKey is the key of the time at which the connection of a request began.
type bornKey struct{}

// addrOf returns the address that a request came from.
func addrOf(r *http.Request) net.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil // counts as one peer with all others like it
	}
	return net.TCPAddrFromAddrPort(from)
}

// beside serves RESTCONF beside gRPC until ctx is done, if it is wanted. Its
// port may be taken by something else of the router: that is told, and does not
// end the agent. The function returned ends it.
func (a *Agent) beside(ctx context.Context) (end func()) {
	if a.config.RESTCONF == "" {
		return func() {}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", a.config.RESTCONF)
	if err != nil {
		a.config.Log.Error("RESTCONF is not served", "cause", err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.ServeRESTCONF(ctx, l); err != nil {
			a.config.Log.Error("RESTCONF is no longer served", "cause", err)
		}
	}()
	return func() { cancel(); <-ended }
}

// ServeRESTCONF serves RFC 9684 over RESTCONF on l until ctx is done, and
// closes l. Requests that are being answered get Limits.Stop to end.
func (a *Agent) ServeRESTCONF(ctx context.Context, l net.Listener) error {
	a.config.Log.Info("RESTCONF is served", "address", l.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- a.web.Serve(tls.NewListener(a.gate.before(l), a.web.TLSConfig)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("agent: RESTCONF: %w", err)
	case <-ctx.Done():
	}
	cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.config.Limits.Stop)
	defer cancel()
	if a.web.Shutdown(cut) != nil {
		return a.web.Close()
	}
	return nil
}

// web stands before every request of RESTCONF: a device without an owner
// answers none, each request has its deadline, and a panic is the error of one
// request.
func (g *guard) web(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s := &statusWriter{ResponseWriter: w}
		defer func() { g.reportWeb(s, r, start, recover()) }()
		if !g.owned {
			restconf.Refuse(s, errNoOwner)
			return
		}
		if born, ok := r.Context().Value(bornKey{}).(time.Time); ok && time.Since(born) > g.limits.Age {
			w.Header().Set("Connection", "close") // the client's certificate is looked at anew
		}
		ctx, cancel := context.WithTimeout(r.Context(), g.limits.Call)
		defer cancel()
		next.ServeHTTP(s, r.WithContext(ctx))
	})
}

// reportWeb is report and survive for RESTCONF. An answer that broke off stays
// broken: the connection ends.
func (g *guard) reportWeb(s *statusWriter, r *http.Request, start time.Time, p any) {
	level, cause := slog.LevelDebug, ""
	if broken, _ := p.(error); p != nil && !errors.Is(broken, http.ErrAbortHandler) {
		level, cause = slog.LevelError, fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
	}
	if cause != "" && s.status == 0 {
		restconf.Refuse(s, errPanic)
		p = nil
	}
	g.log.LogAttrs(r.Context(), level, "request", slog.String("method", r.Method), slog.String("path", r.URL.EscapedPath()),
		slog.Int("status", s.status), slog.Duration("took", time.Since(start)), slog.String("peer", r.RemoteAddr), slog.String("cause", cause))
	if p != nil {
		panic(http.ErrAbortHandler)
	}
}

var errPanic = errors.New("panic") // its client is told of an internal error

// statusWriter remembers the status that was answered; 0: none yet.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (s *statusWriter) Write(b []byte) (int, error) {
	if s.status == 0 {
		s.status = http.StatusOK
	}
	return s.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
