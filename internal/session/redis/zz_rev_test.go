package redis

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"
)

func TestZZHostile(t *testing.T) {
	for name, says := range map[string]string{"bulk": "$1500000000\r\nx", "array": "*300000000\r\n", "neg": "$9223372036854775806\r\n", "arrmax": "*9223372036854775806\r\n", "line": ""} {
		t.Run(name, func(t *testing.T) {
			l, _ := net.Listen("tcp", "127.0.0.1:0")
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						b := make([]byte, 4096)
						if _, err := c.Read(b); err != nil {
							return
						}
						if says != "" {
							c.Write([]byte(says))
							time.Sleep(5 * time.Second)
							return
						}
						big := make([]byte, 1<<20)
						for i := range big {
							big[i] = 'x'
						}
						c.Write([]byte("+"))
						for {
							if _, err := c.Write(big); err != nil {
								return
							}
						}
					}()
				}
			}()
			s, err := New(Options{Policy: "p", Addresses: []string{l.Addr().String()}})
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err = s.Check(context.Background())
			runtime.ReadMemStats(&after)
			text := "nil"
			if err != nil {
				text = err.Error()
			}
			t.Logf("allocated %d MiB, sys %d: %.150s", (after.TotalAlloc-before.TotalAlloc)>>20, after.Sys>>20, text)
			s.Close()
		})
	}
}
