"""A Kubernetes that answers what JAX asks of it, and a process as of a pod.

`Api` serves, over HTTP on loopback, the pods and the job that a controller
makes of a JobSet's manifest. `python -m helpers.pods MODULE FLAGS` is a command
that reaches it, with `API` and `COORDINATOR` in its environment: it stands for
the certificates and the name service of a cluster, and no more.
"""

import copy
import http.server
import json
import os
import runpy
import socket
import sys
import threading
import urllib.parse


class Api:
  """Of the first replicated job of a JobSet; a context that gives itself.

  Attributes:
    asked: paths that were asked for.
    address: host and port.
  """

  def __init__(self, jobset):
    name = jobset['metadata']['name']
    (job, *_) = jobset['spec']['replicatedJobs']
    spec = copy.deepcopy(job['template']['spec'])
    for container in spec['template']['spec']['containers']:
      for amounts in container.get('resources', {}).values():
        # As texts, which the API makes of numbers.
        amounts.update({kind: str(x) for kind, x in amounts.items()})
    full = f'{name}-{job["name"]}-0'
    labels = {
      'job-name': full,
      'jobset.sigs.k8s.io/jobset-name': name,
    }
    owner = {'kind': 'Job', 'name': full, 'uid': '1', 'apiVersion': 'batch/v1'}
    pod = {
      'metadata': {
        'name': f'{full}-0',
        'labels': labels,
        'ownerReferences': [{**owner, 'controller': True}],
      },
      'spec': {**spec['template']['spec'], 'subdomain': name},
    }
    self.answers = {
      '/api/v1/namespaces/here/pods': {'kind': 'PodList', 'items': [pod]},
      f'/apis/batch/v1/namespaces/here/jobs/{full}': {
        'kind': 'Job',
        'metadata': {'name': full, 'labels': labels},
        'spec': spec,
      },
    }
    self.asked = []

  def __enter__(self):
    api = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        api.asked.append(path)
        answer = api.answers.get(path)
        body = json.dumps(answer or {'kind': 'Status'}).encode()
        self.send_response(200 if answer else 404)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

      def log_message(self, *words):
        pass

    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self.address = f'127.0.0.1:{self._server.server_address[1]}'
    threading.Thread(target=self._server.serve_forever, daemon=True).start()
    return self

  def __exit__(self, *error):
    self._server.shutdown()
    self._server.server_close()


def environment(api, index, port):
  """Of a pod."""
  host, _, its_port = api.address.partition(':')
  return {
    'KUBERNETES_SERVICE_HOST': host,
    'KUBERNETES_SERVICE_PORT': its_port,
    'HOSTNAME': 'localhost',
    'JOB_COMPLETION_INDEX': str(index),
    'API': f'http://{api.address}',
    'COORDINATOR': f'127.0.0.1:{port}',
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': '1',
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
  }


def _stand_for_a_cluster():
  import kubernetes
  from jax._src.clusters.k8s_cluster import K8sCluster

  def load():
    settings = kubernetes.client.Configuration()
    settings.host = os.environ['API']
    kubernetes.client.Configuration.set_default(settings)

  kubernetes.config.load_incluster_config = load
  K8sCluster._namespace = classmethod(lambda cls: 'here')
  find, resolve = K8sCluster.get_coordinator_address, socket.gethostbyname

  def get_coordinator_address(*words, **options):
    print('the coordinator is', find(*words, **options), flush=True)
    return os.environ['COORDINATOR']

  K8sCluster.get_coordinator_address = get_coordinator_address
  socket.gethostbyname = lambda name: (
    resolve(name) if name == 'localhost' else '127.0.0.1'
  )


if __name__ == '__main__':
  _stand_for_a_cluster()
  sys.argv = sys.argv[1:]
  runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
