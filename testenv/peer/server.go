package peer

import (
	"errors"
	"net"
	"sync"
)

// Server accepts connections for tests until Close.
type Server struct {
	listeners []net.Listener
	serving   sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool // nil: it is closed
}

// Accept begins to accept connections. For each of them begin is called, in their
// order, and what it returns in a goroutine of its own; the connection is closed behind
// that.
func Accept(begin func(net.Conn) (serve func()), listeners ...net.Listener) *Server {
	s := &Server{listeners: listeners, open: map[net.Conn]bool{}}
	for _, listener := range listeners {
		s.serving.Go(func() { s.accept(listener, begin) })
	}
	return s
}

func (s *Server) accept(listener net.Listener, begin func(net.Conn) func()) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		if !s.hold(conn) {
			conn.Close()
			return
		}
		serve := begin(conn)
		s.serving.Go(func() {
			serve()
			conn.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.open, conn)
		})
	}
}

// hold notes a connection that Close has to end; false if it was there already.
func (s *Server) hold(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return false
	}
	s.open[conn] = true
	return true
}

// Close ends the listeners and every connection, and waits for those who serve them.
func (s *Server) Close() error {
	var failures []error
	for _, listener := range s.listeners {
		failures = append(failures, listener.Close())
	}
	s.mu.Lock()
	for conn := range s.open {
		conn.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.serving.Wait()
	return errors.Join(failures...)
}
