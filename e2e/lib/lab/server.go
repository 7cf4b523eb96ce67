// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server answers on TCP and UDP at one address. Each line and each datagram is answered
// with the server's name, the sender's address as the server sees it, and the text that
// was sent.
type Server struct {
	Name string
	// Addr is where it listens.
	Addr string
	// Linger is how long it waits after a client has ended its direction,
	// before it says "bye" and ends its own.
	Linger time.Duration
	// Connections counts those accepted, Datagrams those received.
	Connections, Datagrams atomic.Uint64

	ln    net.Listener
	pc    net.PacketConn
	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Serve starts a server in the node, which lives as long as the lab or until Close.
func (n *Node) Serve(name, addr string) (*Server, error) {
	if n.lab.err != nil {
		return nil, n.lab.err
	}
	s := &Server{Name: name, Addr: addr, conns: map[net.Conn]bool{}}
	var err error
	if s.ln, err = n.Listen("tcp", addr); err != nil {
		return nil, err
	}
	if s.pc, err = n.ListenPacket("udp", addr); err != nil {
		_ = s.ln.Close()
		return nil, err
	}
	if err = RaiseReceiveBuffer(s.pc.(*net.UDPConn)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	n.lab.atEnd(s.Close)
	go s.accept()
	go s.datagrams()
	return s, nil
}

// ServeBoth starts two servers of one name, at a port of the node's IPv4 and
// IPv6 addresses.
func (n *Node) ServeBoth(name string, port int) (servers [2]*Server, err error) {
	for i, ip := range []string{n.IPv4, n.IPv6} {
		if servers[i], err = n.Serve(name, net.JoinHostPort(ip, strconv.Itoa(port))); err != nil {
			return servers, fmt.Errorf("serve on %s: %w", n.Name, err)
		}
	}
	return servers, nil
}

// Close ends the server and its connections.
func (s *Server) Close() error {
	_ = s.ln.Close() // a second Close says that there was a first
	_ = s.pc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
	return nil
}

func (s *Server) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.Connections.Add(1)
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		go s.answer(c)
	}
}

func (s *Server) answer(c net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		_ = c.Close()
	}()
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			time.Sleep(s.Linger)
			_, _ = io.WriteString(c, "bye\n") // the client may have gone
			return
		}
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "%s %s %s", s.Name, c.RemoteAddr(), line); err != nil {
			return
		}
	}
}

func (s *Server) datagrams() {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := s.pc.ReadFrom(buffer)
		if err != nil {
			return
		}
		s.Datagrams.Add(1)
		head := fmt.Sprintf("%s %s ", s.Name, from)
		// An answer the client does not hear is its loss.
		_, _ = s.pc.WriteTo(append([]byte(head), buffer[:n]...), from)
	}
}

// Answer is a server's answer.
type Answer struct {
	// Server is its name, Client whom it thinks it talks to.
	Server, Client string
	Body           string
}

func parseAnswer(text string) (Answer, error) {
	parts := strings.SplitN(strings.TrimSuffix(text, "\n"), " ", 3)
	if len(parts) != 3 {
		return Answer{}, fmt.Errorf("answer %q", text)
	}
	return Answer{parts[0], parts[1], parts[2]}, nil
}

// Ask sends one line or datagram on a connection to a Server and returns the answer to it.
func Ask(c net.Conn, body string, limit time.Duration) (Answer, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return Answer{}, err
	}
	if _, udp := c.(*net.UDPConn); udp {
		if _, err := io.WriteString(c, body); err != nil {
			return Answer{}, err
		}
		buffer := make([]byte, 1<<16)
		for {
			n, err := c.Read(buffer)
			if err != nil {
				return Answer{}, err
			}
			// An answer that comes late is to an earlier question.
			if a, err := parseAnswer(string(buffer[:n])); err != nil || a.Body == body {
				return a, err
			}
		}
	}
	if _, err := io.WriteString(c, body+"\n"); err != nil {
		return Answer{}, err
	}
	// One line in flight at a time: nothing is lost with the reader.
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return Answer{}, err
	}
	return parseAnswer(line)
}
