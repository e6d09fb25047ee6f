// What programs written with @kubernetes/client-node do, against the cluster of $KUBECONFIG.

import assert from 'node:assert/strict';
import {Writable} from 'node:stream';
import {after, before, test} from 'node:test';
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
let namespace;

before(async () => {
  namespace = (await core.createNamespace({body: {metadata: {generateName: 'js-'}}})).metadata.name;
});

after(() => core.deleteNamespace({name: namespace}));

const path = () => `/api/v1/namespaces/${namespace}/configmaps`;

test('a watch and an informer see what is created', async () => {
  let stop;
  const watched = new Promise((done, failed) => {
    const ended = (error) => error && error.name !== 'AbortError' && failed(error);
    stop = new k8s.Watch(config).watch(path(), {}, (type, object) => {
      if (object.metadata.name === 'seen') done(type);
    }, ended);
  });
  const informer = k8s.makeInformer(config, path(), () => core.listNamespacedConfigMap({namespace}));
  const added = new Promise((done) => informer.on('add', (object) => object.metadata.name === 'seen' && done(object)));
  await informer.start();
  const controller = await stop;
  await core.createNamespacedConfigMap({namespace, body: {metadata: {name: 'seen'}, data: {key: 'value'}}});
  assert.equal(await watched, 'ADDED');
  assert.deepEqual((await added).data, {key: 'value'});
  const {items} = await core.listNamespacedConfigMap({namespace});
  assert.ok(items.some((object) => object.metadata.name === 'seen'));
  await informer.stop();
  controller.abort();
});

test('an object is applied, replaced and deleted', async () => {
  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  const wanted = {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 'applied', namespace}, data: {key: 'one'}};
  const strategy = k8s.PatchStrategy.ServerSideApply;
  const applied = await objects.patch(wanted, undefined, undefined, 'test', true, strategy);
  assert.equal(applied.data.key, 'one');
  applied.data.key = 'two';
  assert.equal((await objects.replace(applied)).data.key, 'two');
  await objects.delete(wanted);
  await assert.rejects(core.readNamespacedConfigMap({name: 'applied', namespace}), (error) => error.code === 404);
});

test('a command in a container', async () => {
  let out = '';
  const sink = new Writable({write(chunk, _, next) { out += chunk; next(); }});
  const status = await new Promise((done, failed) => {
    const exec = new k8s.Exec(config);
    exec.exec('default', process.env.POD, 'web', ['echo', 'hello'], sink, process.stderr, null, false, done).catch(failed);
  });
  assert.equal(status.status, 'Success');
  assert.equal(out, 'hello\n');
});
