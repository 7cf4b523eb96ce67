// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// The ports that endpoints.yaml names.
const (
	httpPort     = 8080
	datagramPort = 5353
)

const patience = 3 * time.Second

// serve answers HTTP and datagrams on backend i with its name.
func serve(n *lab.Node, i int) error {
	for _, host := range []string{fmt.Sprintf("10.77.0.%d", 10+i), fmt.Sprintf("[fd77::%d]", 10+i)} {
		ln, err := n.Listen("tcp", fmt.Sprintf("%s:%d", host, httpPort))
		if err != nil {
			return err
		}
		pc, err := n.ListenPacket("udp", fmt.Sprintf("%s:%d", host, datagramPort))
		if err != nil {
			return err
		}
		server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, n.Name)
		})}
		go func() { _ = server.Serve(ln) }() // until the process ends
		go func() {
			question := make([]byte, 1500)
			for {
				_, from, err := pc.ReadFrom(question)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo([]byte(n.Name+"\n"), from) // a lost answer is the client's to notice
			}
		}()
	}
	return nil
}

// client is a connection to a VIP.
type client struct {
	net.Conn
	in *bufio.Reader
}

func (d *demo) dial(network, addr string) (*client, error) {
	c, err := d.net.Client.Dial(network, "", addr, patience)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReader(c)}, nil
}

// ask returns the name of the backend that answers.
func (c *client) ask() (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if c.RemoteAddr().Network() == "udp" {
		if _, err := io.WriteString(c, "who are you?\n"); err != nil {
			return "", err
		}
		name, err := c.in.ReadString('\n')
		return strings.TrimSpace(name), err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: demo\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", err
	}
	name, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return strings.TrimSpace(string(name)), err
}
