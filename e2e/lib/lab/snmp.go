// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"strconv"
	"strings"
)

// SNMP returns the node's protocol counters by name, such as TcpInCsumErrors
// and Udp6InErrors (RFC 1213 and Linux's own).
func (n *Node) SNMP() (map[string]uint64, error) {
	var four, six []byte
	err := n.Do(func() (err error) {
		if four, err = os.ReadFile("/proc/thread-self/net/snmp"); err != nil {
			return err
		}
		six, err = os.ReadFile("/proc/thread-self/net/snmp6")
		return err
	})
	if err != nil {
		return nil, err
	}
	counters := map[string]uint64{}
	lines := strings.Split(strings.TrimSpace(string(four)), "\n")
	for i := 0; i+1 < len(lines); i += 2 { // names above numbers
		names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := 1; j < len(names) && j < len(numbers); j++ {
			value, err := strconv.ParseUint(numbers[j], 10, 64)
			if err == nil { // MaxConn is -1
				counters[strings.TrimSuffix(names[0], ":")+names[j]] = value
			}
		}
	}
	for _, line := range strings.Split(string(six), "\n") {
		if words := strings.Fields(line); len(words) == 2 {
			if value, err := strconv.ParseUint(words[1], 10, 64); err == nil {
				counters[words[0]] = value
			}
		}
	}
	return counters, nil
}

// ChecksumErrors returns how many packets the node has received with a wrong
// checksum, of any protocol.
func (n *Node) ChecksumErrors() (uint64, error) {
	counters, err := n.SNMP()
	// IpInHdrErrors counts wrong header checksums, among other things that are wrong too.
	sum := counters["IpInHdrErrors"]
	for name, value := range counters {
		if strings.HasSuffix(name, "InCsumErrors") {
			sum += value
		}
	}
	return sum, err
}
