// A program with plain gRPC: `plain_caller ADDRESS...` makes 20 unary calls a second until its input ends.
//
// It takes turns among the servers whose health service says SERVING, and repeats nothing. It writes each call that
// fails, and at the end how many there were, to standard error, as lines of JSON. plain_caller.py does the same.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	doherty "doherty/v1"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // lets the client watch the health of servers
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/proto"
)

const (
	interval = time.Second / 20
	config   = `{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`
)

// report writes lines; goroutines share it.
type report struct {
	sync.Mutex
	made, failed int
}

func (r *report) write(line map[string]interface{}) {
	if err := json.NewEncoder(os.Stderr).Encode(line); err != nil {
		log.Fatal(err)
	}
}

// call makes a call and reports how it ended.
func call(client doherty.GenerationServiceClient, label string, r *report) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stopping := &doherty.Stopping{MaxOutputTokens: proto.Uint32(5), IgnoreEos: true}
	request := &doherty.GenerateRequest{RequestId: label, Prompt: proto.String("a"), Stopping: stopping}
	var server peer.Peer
	_, err := client.Generate(ctx, request, grpc.Peer(&server))
	r.Lock()
	defer r.Unlock()
	r.made++
	if err != nil {
		address := ""
		if server.Addr != nil {
			address = server.Addr.String()
		}
		r.failed++
		r.write(map[string]interface{}{
			"event": "failed", "request_id": label, "peer": address, "message": err.Error(),
		})
	}
}

func main() {
	servers := manual.NewBuilderWithScheme("servers")
	state := resolver.State{}
	for _, address := range os.Args[1:] {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	servers.InitialState(state)
	connection, err := grpc.Dial(
		"servers:///", grpc.WithInsecure(), grpc.WithResolvers(servers), grpc.WithDefaultServiceConfig(config),
	)
	if err != nil {
		log.Fatal(err)
	}
	client := doherty.NewGenerationServiceClient(connection)

	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	var r report
	var calls sync.WaitGroup
	r.write(map[string]interface{}{"event": "calling"})
	ticker := time.NewTicker(interval)
	for number := 1; ; number++ {
		label := fmt.Sprintf("plain-%d", number)
		calls.Add(1)
		go func() {
			defer calls.Done()
			call(client, label, &r)
		}()
		select {
		case <-ticker.C:
			continue
		case <-ended:
		}
		break
	}
	calls.Wait()
	r.write(map[string]interface{}{"event": "done", "made": r.made, "failed": r.failed})
}
